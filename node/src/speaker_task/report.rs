//! From the speaker's snapshot to the words of the API.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use api::{PeerOrigin, PeerStatus};
use bgp::{State, driver::Handle, snapshot::PeerSnapshot};
use ipam::Clock;
use tokio::sync::watch;

use super::Told;
use crate::{peering::Origin, report::BgpReport, speaker_config::Spoken};

/// How often the speaker is asked.
const EVERY: Duration = Duration::from_millis(500);

/// Asks the speaker for its state until the task is dropped; the report changes only when something did.
pub(super) async fn run(
    mut handle: watch::Receiver<Option<Handle>>,
    told: watch::Receiver<Told>,
    routes: watch::Receiver<u64>,
    report: watch::Sender<BgpReport>,
) {
    let clock = Clock::system();
    let mut since: BTreeMap<IpAddr, (State, String)> = BTreeMap::new();
    let speaker = match handle.wait_for(Option::is_some).await {
        Ok(found) => found.clone(),
        Err(_) => None,
    };
    while let Some(handle) = &speaker {
        let Ok(snapshot) = handle.snapshot(false).await else { break };
        let next = {
            let told = told.borrow();
            let spoken = told.spoken.as_ref();
            let peers = snapshot.peers.iter().map(|peer| status(peer, spoken, &mut since, &clock));
            let problems = spoken.iter().flat_map(|spoken| &spoken.problems);
            BgpReport {
                local_as: snapshot.local_as.0,
                router_id: snapshot.router_id.to_string(),
                peers: peers.collect(),
                problems: problems.map(ToString::to_string).collect(),
                blocks: told.blocks.clone(),
                routes: *routes.borrow(),
            }
        };
        report.send_if_modified(|report| {
            let changed = *report != next;
            if changed {
                *report = next;
            }
            changed
        });
        tokio::time::sleep(EVERY).await;
    }
    std::future::pending().await
}

fn status(
    peer: &PeerSnapshot,
    spoken: Option<&Spoken>,
    since: &mut BTreeMap<IpAddr, (State, String)>,
    clock: &Clock,
) -> PeerStatus {
    let entered = match since.get(&peer.address) {
        Some((state, text)) if *state == peer.state => text.clone(),
        _ => {
            let text = clock.now().rfc3339();
            since.insert(peer.address, (peer.state, text.clone()));
            text
        }
    };
    let config = spoken.map(|spoken| &spoken.config);
    let peerings = spoken.iter().flat_map(|spoken| &spoken.peerings);
    let origin = peerings.into_iter().find(|known| known.address == peer.address);
    let origin = origin.map(|known| match known.origin {
        Origin::Mesh => PeerOrigin::NodeMesh,
        Origin::Node => PeerOrigin::NodePeer,
        Origin::Global => PeerOrigin::GlobalPeer,
    });
    let local_as = config
        .and_then(|config| {
            let mine = config.peers.iter().find(|candidate| candidate.address == peer.address)?;
            Some(mine.local_as.unwrap_or(config.local_as))
        })
        .map_or(0, |asn| asn.0);
    let families = bgp::Family::ALL.iter().filter(|family| peer.families.contains(**family));
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    PeerStatus {
        name: peer.name.clone(),
        address: peer.address.to_string(),
        local_as,
        peer_as: peer.asn.0,
        peer_type: origin.unwrap_or_default(),
        state: peer.state.to_string(),
        since: Some(entered),
        last_error: peer.last_error.clone(),
        families: families.map(|family| format!("{family}-unicast")).collect(),
        received: count(peer.prefixes_received),
        accepted: count(peer.prefixes_accepted),
        installed: count(peer.prefixes_installed),
        advertised: count(peer.prefixes_advertised),
        graceful_restart: Some(if peer.graceful_restart { "negotiated" } else { "off" }.to_owned()),
        bfd: peer.bfd.map(|state| state.to_string()),
    }
}
