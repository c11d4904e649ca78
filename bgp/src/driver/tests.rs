use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{Asn, LocalRoute, PeerConfig, Prefix, RouterId, Shutdown, State};

/// Addresses and the port of this process alone: the same tests may run beside these, for another checkout.
fn address(index: u8) -> IpAddr {
    let part = std::process::id() / 20_000;
    IpAddr::from([127, 77, u8::try_from(part).unwrap_or(u8::MAX), index])
}

fn port() -> u16 {
    let part = std::process::id() % 20_000;
    10_000 + u16::try_from(part).unwrap()
}

/// Two speakers of this machine; TCP MD5 on.
fn config(own: u8, other: u8) -> (SpeakerConfig, Options) {
    let asn = |index: u8| Asn(u32::from(index));
    let port = port();
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
    let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
    let (left_config, left_options) = config(1, 2);
    let (right_config, right_options) = config(2, 1);
    let (left, _left_fib) = spawn(left_config, left_options).unwrap();
    let (right, mut right_fib) = spawn(right_config, right_options).unwrap();
    left.originate(prefix, LocalRoute::default()).unwrap();
    let test = async {
        let batch = next_route(&mut right_fib).await;
        assert_eq!(batch.updates[0].prefix, prefix);
        assert_eq!(batch.updates[0].route.next_hops()[0].address, address(1));
        let snapshot = right.snapshot(true).await.unwrap();
        assert_eq!(snapshot.peers[0].state, State::Established);
        let mut events = right.events();
        left.shutdown(Shutdown::Final).await;
        let batch = next_route(&mut right_fib).await;
        assert_eq!(batch.updates[0].route, crate::FibRoute::Absent);
        let event = events.recv().await.unwrap();
        assert_eq!(event.cause, "received 6/9 hard reset (6/2 administrative shutdown)");
        right.shutdown(Shutdown::Restart).await;
        assert!(right_fib.recv().await.is_none());
    };
    tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (config, options) = config(3, 4);
    let _first = spawn(config.clone(), options.clone()).unwrap();
    let error = spawn(config, options).unwrap_err();
    let expected = format!("cannot listen on {}:{}", address(3), port());
    assert!(error.to_string().contains(&expected), "{error}");
}

/// More than the kernel's buffers hold.
fn originate_plenty(speaker: &Handle) {
    for number in 0..16_000_u32 {
        let communities = (0..240).map(|low| crate::Community(number << 8 | low)).collect();
        let prefix = format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap();
        let route = LocalRoute { communities, ..LocalRoute::default() };
        speaker.originate(prefix, route).unwrap();
    }
}

/// Says OPEN with a hold time of 3 s and one KEEPALIVE, then neither reads nor speaks again.
#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let (mut config, options) = config(5, 6);
    config.peers[0].password = None;
    config.peers[0].passive = true;
    let to = options.listen[0];
    let (speaker, _fib) = spawn(config, options).unwrap();
    originate_plenty(&speaker);
    let mut stream = connect(address(6), to).await;
    stream.write_all(&greeting(6, Default::default())).await.unwrap();
    let test = async {
        while stream.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), test).await.unwrap();
    speaker.shutdown(Shutdown::Final).await;
}

/// OPEN of a peer with a hold time of 3 s, and its first KEEPALIVE.
fn greeting(asn: u8, capabilities: crate::wire::Capabilities) -> Vec<u8> {
    let (asn, router_id) = (Asn(u32::from(asn)), RouterId(u32::from(asn)));
    let open = crate::wire::Open { asn, hold_time: 3, router_id, capabilities };
    [open.encode(), crate::wire::keepalive()].concat()
}

async fn connect(from: IpAddr, to: SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn until(handle: &Handle, fact: impl Fn(&crate::snapshot::Snapshot) -> bool) {
    let wait = async {
        while !fact(&handle.snapshot(false).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

/// A busy machine, a debugger, SIGSTOP: nothing of ours runs for longer than the hold time, while the peers go on speaking.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it is the stop that is tested")]
async fn after_a_long_stop_what_peers_said_meanwhile_counts_before_the_hold_timer() {
    let (mut config, options) = config(7, 8);
    let template = PeerConfig { password: None, passive: true, ..config.peers.remove(0) };
    let addresses: Vec<IpAddr> = (101..=108).map(address).collect();
    for address in &addresses {
        let peer = PeerConfig { name: address.to_string(), address: *address, ..template.clone() };
        config.peers.push(peer);
    }
    let (speaker, _fib) = spawn(config, options.clone()).unwrap();
    let mut streams = Vec::new();
    for address in &addresses {
        let stream = connect(*address, options.listen[0]).await;
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        io::Write::write_all(&mut stream, &greeting(8, Default::default())).unwrap();
        streams.push(stream);
    }
    let all_up = |snapshot: &crate::snapshot::Snapshot| {
        snapshot.peers.iter().all(|peer| peer.state == State::Established)
    };
    until(&speaker, all_up).await;
    let peers = std::thread::spawn(move || {
        for _ in 0..7 {
            std::thread::sleep(Duration::from_millis(700));
            for stream in &mut streams {
                let _ = io::Write::write_all(stream, &crate::wire::keepalive());
            }
        }
        streams
    });
    std::thread::sleep(Duration::from_secs(4));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let snapshot = speaker.snapshot(false).await.unwrap();
        let errors = snapshot.peers.iter().filter_map(|peer| peer.last_error.as_deref());
        assert_eq!(errors.collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(all_up(&snapshot));
    }
    drop(peers.join().unwrap());
}

/// A peer that closes with unread bytes resets the connection right behind its NOTIFICATION: its words count, not the reset.
#[tokio::test]
async fn last_words_are_heard_although_the_connection_is_reset_behind_them() {
    let (mut config, options) = config(9, 10);
    config.peers[0].password = None;
    config.peers[0].passive = true;
    config.peers[0].idle_hold = Duration::from_millis(1);
    config.peers[0].idle_hold_max = Duration::from_millis(1);
    let address = config.peers[0].address;
    let (speaker, _fib) = spawn(config, options.clone()).unwrap();
    for number in 0..2000_u32 {
        let prefix = format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap();
        speaker.originate(prefix, LocalRoute::default()).unwrap();
    }
    for round in 0..40 {
        let mut stream = connect(address, options.listen[0]).await;
        stream.set_zero_linger().unwrap();
        let greeting = greeting(10, Default::default());
        stream.write_all(&greeting).await.unwrap();
        until(&speaker, |snapshot| snapshot.peers[0].state == State::Established).await;
        let cease = crate::wire::Notification::cease(crate::wire::Cease::MaximumPrefixes);
        stream.write_all(&cease.encode()).await.unwrap();
        drop(stream);
        until(&speaker, |snapshot| snapshot.peers[0].state != State::Established).await;
        let error = speaker.snapshot(false).await.unwrap().peers.remove(0).last_error;
        let expected = "received 6/1 maximum number of prefixes reached";
        assert_eq!(error.as_deref(), Some(expected), "in round {round}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    speaker.shutdown(Shutdown::Final).await;
}

/// Where the kernel has TCP-AO two speakers use it; elsewhere the speaker does not start, and says what is missing.
#[tokio::test]
async fn keys_of_tcp_ao_are_used_or_refused_with_a_reason() {
    use crate::config::{AoAlgorithm, AoKey};
    let with_keys = |own: u8, other: u8| {
        let (mut config, options) = config(own, other);
        config.peers[0].password = None;
        let key = |id: u8, algorithm| AoKey {
            send_id: id,
            receive_id: id,
            algorithm,
            secret: format!("secret {id}"),
        };
        config.peers[0].tcp_ao = vec![key(1, AoAlgorithm::HmacSha1), key(2, AoAlgorithm::AesCmac)];
        (config, options)
    };
    let (left_config, left_options) = with_keys(11, 12);
    if let Err(error) = check(&left_config) {
        let refused = spawn(left_config, left_options).unwrap_err();
        for error in [error, refused] {
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("CONFIG_"), "{source}");
        }
        return;
    }
    let (right_config, right_options) = with_keys(12, 11);
    let (left, _left_fib) = spawn(left_config, left_options).unwrap();
    let (_right, _right_fib) = spawn(right_config, right_options).unwrap();
    until(&left, |snapshot| snapshot.peers[0].state == State::Established).await;
}

/// A collector of BMP that takes nothing for a minute and a half counts as dead, and is connected to anew. Its socket is
/// real, the clock is not: it moves on whenever nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn a_collector_that_reads_nothing_is_given_up_and_tried_again() {
    let listener = tokio::net::TcpListener::bind((address(14), 0)).await.unwrap();
    let (mut config, options) = config(13, 14);
    config.peers.clear();
    let there = listener.local_addr().unwrap().to_string();
    config.collectors.push(crate::bmp::Collector::new(there, "router"));
    let (speaker, _fib) = spawn(config, options).unwrap();
    originate_plenty(&speaker);
    let (mut deaf, _) = listener.accept().await.unwrap();
    let begin = tokio::time::Instant::now();
    until(&speaker, |snapshot| snapshot.collectors[0].connected).await;
    let (mut second, _) = listener.accept().await.unwrap();
    // The time without a read, and the wait before the next attempt; not the buffers', which fill at once.
    let took = begin.elapsed().as_secs();
    assert!((120..=125).contains(&took), "again after {took} s");

    // What the first one would have read is the beginning of the stream, and ends in the middle.
    let mut stream = Vec::new();
    deaf.read_to_end(&mut stream).await.unwrap();
    let megabytes = stream.len() >> 20;
    assert!((1..16).contains(&megabytes), "{megabytes} MiB");
    // The new one hears everything from the beginning: version 3, Initiation (RFC 7854 §4.3).
    let mut head = [0; 6];
    second.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], head[5], head), (3, 4, stream[..6].try_into().unwrap()));
    speaker.shutdown(Shutdown::Final).await;
}
