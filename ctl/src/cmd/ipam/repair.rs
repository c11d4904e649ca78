//! `voilectl ipam check --repair`: what the collector does after a quarter of an hour, now.

use std::time::Duration;

use anyhow::Result;
use api::IpamConfiguration;
use ipam::{
    Clock, UnixNanos,
    collector::{self, Applied, Inventory, Observations, Rules},
};
use store::Store;

use super::fsck::{self, BETWEEN_OBSERVATIONS, Cluster};
use crate::{
    cmd::{Context, Outcome},
    output::Format,
};

/// Looks twice, releases what was wrong both times, the same once more if that uncovered something, and checks again.
///
/// # Errors
/// Whatever the API server answers.
pub(super) async fn repair<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let configuration = context.list::<IpamConfiguration>().await?.items;
    let cooldown = configuration.first().and_then(|one| one.spec.ip_cooldown_seconds);
    let rules = Rules {
        cooldown: Duration::from_secs(cooldown.unwrap_or_default().into()),
        grace: Some(Duration::ZERO),
        settle: Duration::ZERO,
        spare_blocks: false,
    };
    let mut done = once(context, &rules).await?;
    if !done.addresses.is_empty() {
        // A handle whose addresses went may still count others that never came: that shows only now.
        let more = once(context, &rules).await?;
        done.addresses.extend(more.addresses);
        done.blocks.extend(more.blocks);
        done.affinities.extend(more.affinities);
        done.handles.extend(more.handles);
        done.errors = more.errors;
    }
    let (cluster, findings) = Cluster::observe(context).await?;
    if let Some(file) = &context.report {
        super::report::write(context, &cluster, file).await?;
    }
    let mut outcome = fsck::told(context, &findings)?;
    if matches!(context.format, Format::Json | Format::Yaml) {
        return Ok(outcome);
    }
    let mut text = String::new();
    for address in done.addresses {
        text.push_str(&format!("released {address}\n"));
    }
    for block in done.blocks {
        text.push_str(&format!("took block {block} from its node\n"));
    }
    for name in done.affinities {
        text.push_str(&format!("deleted affinity {name}\n"));
    }
    for handle in done.handles {
        text.push_str(&format!("mended handle {handle}\n"));
    }
    for (what, error) in &done.errors {
        text.push_str(&format!("{what} is left as it is: {error}\n"));
    }
    outcome.finding |= !done.errors.is_empty();
    outcome.text.insert_str(0, &text);
    Ok(outcome)
}

/// Looks twice and ends what was wrong both times.
async fn once<S: Store>(context: &Context<S>, rules: &Rules) -> Result<Applied> {
    let now = UnixNanos(context.now.saturating_mul(1_000_000_000));
    let first = Cluster::load(context).await?;
    let (seen, _) = collector::plan(&view(&first), &Observations::default(), now, rules);
    tokio::time::sleep(BETWEEN_OBSERVATIONS).await;
    let second = Cluster::load(context).await?;
    let (_, plan) = collector::plan(&view(&second), &seen, now, rules);
    Ok(collector::apply(&context.store, &plan, &Clock::new(move || now)).await)
}

fn view(cluster: &Cluster) -> Inventory<'_> {
    Inventory {
        blocks: cluster.inventory.blocks.iter().map(|block| &block.object).collect(),
        affinities: cluster.affinities.iter().collect(),
        handles: cluster.handles.iter().collect(),
        nodes: cluster.nodes.iter().collect(),
        pods: cluster.pods.iter().collect(),
        pools: Some(cluster.inventory.pools.iter().map(|(_, pool)| pool).collect()),
        machines: None,
    }
}
