use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{Asn, LocalRoute, PeerConfig, Prefix, RouterId, Shutdown, State};

/// Two speakers of this machine; TCP MD5 on.
fn config(own: u8, other: u8, port: u16) -> (SpeakerConfig, Options) {
    let asn = |index: u8| Asn(u32::from(index));
    let address = |index: u8| IpAddr::from([127, 77, 0, index]);
    let mut config = SpeakerConfig::new(asn(own), RouterId(u32::from(own)));
    let mut peer = PeerConfig::new("other", address(other), asn(other));
    peer.port = port;
    peer.local_address = Some(address(own));
    peer.password = Some("secret".into());
    peer.connect_retry = Duration::from_secs(1);
    config.peers.push(peer);
    let listen = vec![SocketAddr::new(address(own), port)];
    (config, Options { listen, seed: u64::from(own) })
}

async fn next_route(fib: &mut FibReceiver) -> FibBatch {
    loop {
        let batch = fib.recv().await.unwrap();
        if !batch.updates.is_empty() {
            return batch;
        }
    }
}

#[tokio::test]
async fn two_speakers_exchange_routes_over_tcp() {
    let port = 10_179;
    let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
    let (left_config, left_options) = config(1, 2, port);
    let (right_config, right_options) = config(2, 1, port);
    let (left, _left_fib) = spawn(left_config, left_options).unwrap();
    let (right, mut right_fib) = spawn(right_config, right_options).unwrap();
    left.originate(prefix, LocalRoute::default()).unwrap();
    let test = async {
        let batch = next_route(&mut right_fib).await;
        assert_eq!(batch.updates[0].prefix, prefix);
        assert_eq!(batch.updates[0].next_hops[0].address.to_string(), "127.77.0.1");
        let snapshot = right.snapshot(true).await.unwrap();
        assert_eq!(snapshot.peers[0].state, State::Established);
        let mut events = right.events();
        left.shutdown(Shutdown::Final).await;
        let batch = next_route(&mut right_fib).await;
        assert!(batch.updates[0].next_hops.is_empty());
        let event = events.recv().await.unwrap();
        assert_eq!(event.cause, "received 6/9 hard reset (6/2 administrative shutdown)");
        right.shutdown(Shutdown::Restart).await;
        assert!(right_fib.recv().await.is_none());
    };
    tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (config, options) = config(3, 4, 10_180);
    let _first = spawn(config.clone(), options.clone()).unwrap();
    let error = spawn(config, options).unwrap_err();
    assert!(error.to_string().contains("cannot listen on 127.77.0.3:10180"), "{error}");
}
