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

/// Says OPEN with a hold time of 3 s and one KEEPALIVE, then neither reads nor speaks again.
#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let port = 10_181;
    let (mut config, options) = config(5, 6, port);
    config.peers[0].password = None;
    config.peers[0].passive = true;
    let (speaker, _fib) = spawn(config, options).unwrap();
    // More than the kernel's buffers hold.
    for number in 0..16_000_u32 {
        let communities = (0..240).map(|low| crate::Community(number << 8 | low)).collect();
        let prefix = format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap();
        let route = LocalRoute { communities, ..LocalRoute::default() };
        speaker.originate(prefix, route).unwrap();
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new([127, 77, 0, 6].into(), 0)).unwrap();
    let address = SocketAddr::new([127, 77, 0, 5].into(), port);
    let mut stream = socket.connect(address).await.unwrap();
    let open = crate::wire::Open {
        asn: Asn(6),
        hold_time: 3,
        router_id: RouterId(6),
        capabilities: crate::wire::Capabilities::default(),
    };
    for message in [open.encode(), crate::wire::keepalive()] {
        tokio::io::AsyncWriteExt::write_all(&mut stream, &message).await.unwrap();
    }
    let test = async {
        while stream.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
    speaker.shutdown(Shutdown::Final).await;
}
