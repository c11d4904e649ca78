//! What others read of our speaker: the stream of BMP as Wireshark's dissector takes it apart, the MRT dump as bgpdump does; and
//! why a route is in the kernel or not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use voile_tests::{
    bgp::{Lan, PATIENCE, Voile},
    built, can_make_namespaces, skip, wait_for,
};

/// Announces to host 2; its second prefix is refused there.
const SENDER: &str = r#"
[[network]]
prefix = "10.1.0.0/16"
communities = ["65001:7"]

[[network]]
prefix = "10.9.0.0/16"

[[network]]
prefix = "10.5.0.0/16"

[[network]]
prefix = "fd01::/48"

[[peer]]
name = "watched"
address = "10.0.0.2"
as = 65002
families = ["ipv4", "ipv6"]
next-hop-ipv6 = "fd00::1"
add-path = "send"
"#;

const WATCHED: &str = r#"install-routes = true

[[bmp]]
address = "10.0.0.3:1790"
monitor = ["adj-rib-in-pre", "adj-rib-in-post", "loc-rib", "adj-rib-out-pre", "adj-rib-out-post"]
retry = 0.2
name = "watched"

[[filter]]
name = "stops"

[[filter.rule]]
action = "reject"
prefix = "10.9.0.0/16"
match = "equal"

[[peer]]
name = "sender"
address = "10.0.0.1"
as = 65001
families = ["ipv4", "ipv6"]
next-hop-ipv6 = "fd00::2"
add-path = "receive"
import = ["stops"]
"#;

/// Whatever the collector was sent until it was quiet for a second.
fn read(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 65536]);
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

/// Cuts a stream into messages: version, length, type.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        assert_eq!(stream[0], 3, "version");
        let length = u32::from_be_bytes(stream[1..5].try_into().unwrap());
        let (message, rest) = stream.split_at(usize::try_from(length).unwrap());
        messages.push(message);
        stream = rest;
    }
    messages
}

/// A capture with one TCP segment for each message; addresses and checksums do not matter.
fn capture(stream: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 262_144, 101] {
        file.extend(word.to_ne_bytes());
    }
    // The version is two halves.
    file[4..8].copy_from_slice(&[2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat());
    let mut sequence = 1_u32;
    for message in messages(stream) {
        let total = u16::try_from(40 + message.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3]);
        packet.extend([0xc3, 0x50, 0x06, 0xfe]);
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(message);
        sequence += u32::try_from(message.len()).unwrap();
        let length = u32::from(total);
        for word in [0, 0, length, length] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(packet);
    }
    file
}

fn dissect(stream: &[u8], folder: &Path) -> String {
    let file = folder.join("bmp.pcap");
    std::fs::write(&file, capture(stream)).unwrap();
    let output = Command::new("tshark")
        .args(["-r", &file.to_string_lossy(), "-d", "tcp.port==1790,bmp", "-V"])
        .args(["-o", "tcp.check_checksum:FALSE", "-O", "bmp,bgp"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn show(voile: &Voile, lan: &Lan, what: &[&str]) -> Result<String, String> {
    let socket = lan.folder(2).join("status.sock");
    let mut arguments = vec!["show"];
    arguments.extend(what);
    let socket = socket.to_string_lossy().into_owned();
    arguments.extend(["--socket", &socket]);
    voile.namespace().ask(&built("voile-bgpd").to_string_lossy(), &arguments)
}

#[test]
fn collectors_and_dumps_say_what_the_table_holds() {
    if !can_make_namespaces() {
        skip("bgp_monitoring", "needs root");
        return;
    }
    let lan = Lan::new(3);
    let listener = lan.host(3).run(|| TcpListener::bind("10.0.0.3:1790").unwrap());
    // Somebody else's route with our metric: ours does not replace it.
    let foreign = ["route", "add", "10.5.0.0/16", "dev", "eth0", "metric", "1024", "proto", "99"];
    let _ = lan.host(2).output("ip", &foreign);
    let _sender = Voile::start(&lan, 1, 65001, SENDER);
    let mut watched = Voile::start(&lan, 2, 65002, WATCHED);
    watched.wait_established("sender");
    let _ = watched.wait_route("10.1.0.0/16", "sender");
    let _ = watched.wait_route("fd01::/48", "sender");

    kernel_answers(&lan, &watched);
    let (mut collector, _) = listener.accept().unwrap();
    let mut stream = read(&mut collector);
    // One that goes away hears everything again.
    drop(collector);
    let (mut collector, _) = listener.accept().unwrap();
    stream.extend(read(&mut collector));
    let socket = lan.folder(2).join("status.sock");
    let reset = ["reset", "sender", "--socket", &socket.to_string_lossy()];
    let _ = watched.namespace().output(&built("voile-bgpd").to_string_lossy(), &reset);
    stream.extend(read(&mut collector));
    watched.stop(nix::sys::signal::Signal::SIGINT);
    let rest = read(&mut collector);
    assert!(rest.ends_with(&[3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 0]), "no termination: {rest:?}");
    stream.extend(rest);
    if Path::new("/usr/bin/tshark").exists() {
        let text = dissect(&stream, &lan.folder(3));
        let must = [
            "Type: Initiation Message",
            "Type: Peer Up Notification",
            "Type: Route Monitoring",
            "Type: Statistics Report",
            "Type: Peer Down Notification",
            "Type: Termination Message",
            "Flags: 0x10, Adj-RIB-Out",
            "Flags: 0x50, Post-policy, Adj-RIB-Out",
            "10.1.0.0/16",
            "10.9.0.0/16",
            "fd01::/48",
            "65001:7",
        ];
        for part in must {
            assert!(text.contains(part), "tshark shows no '{part}':\n{text}");
        }
        for frame in text.split("\nFrame ") {
            // Wireshark 4.0 knows no information behind the OPENs, such as the name of the table (RFC 9069 §5.2.1).
            let named = frame.contains("Type: Loc-RIB Instance Peer")
                && frame.contains("Type: Peer Up Notification");
            let bad = ["Malformed", "Expert Info (Error"].iter().any(|part| frame.contains(part));
            assert!(named || !bad, "tshark does not understand:\n{frame}");
        }
    } else {
        skip("BMP beside tshark", "tshark is not installed");
    }
}

/// The kernel's answers arrive: installed, and refused with the reason.
fn kernel_answers(lan: &Lan, watched: &Voile) {
    wait_for("the route is installed", PATIENCE, || {
        let text = show(watched, lan, &["route", "10.1.2.3"])?;
        let installed = text.contains("kernel:   installed via 10.0.0.1");
        if installed { Ok(()) } else { Err(text) }
    });
    let refused = show(watched, lan, &["route", "10.9.0.0/16"]).unwrap();
    assert!(refused.contains("import: rejected: rule 1 of filter stops"), "{refused}");
    assert!(refused.contains("kernel:   no route: no path is usable"), "{refused}");
    wait_for("the reason why it is not", PATIENCE, || {
        let text = show(watched, lan, &["route", "10.5.0.0/16"])?;
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason =
            "NOT installed via 10.0.0.1: another program's route has this prefix and metric";
        if words.contains(reason) { Ok(()) } else { Err(text) }
    });
    dump(lan, watched);
}

/// bgpdump reads what we dump, with path identifiers.
fn dump(lan: &Lan, watched: &Voile) {
    let file = lan.folder(2).join("table.mrt");
    let socket = lan.folder(2).join("status.sock");
    let (file, socket) = (file.to_string_lossy(), socket.to_string_lossy());
    let program = built("voile-bgpd");
    let _ = watched
        .namespace()
        .output(&program.to_string_lossy(), &["dump", &file, "--socket", &socket]);
    if !Path::new("/usr/bin/bgpdump").exists() {
        skip("the MRT dump beside bgpdump", "bgpdump is not installed");
        return;
    }
    let text = watched.namespace().output("bgpdump", &["-m", &file]);
    // With path identifiers, in front of the path.
    let paths =
        ["|10.0.0.1|65001|10.1.0.0/16|1|65001|IGP|10.0.0.1|", "|fd01::/48|1|65001|IGP|fd00::1|"];
    for part in paths.into_iter().chain(["TABLE_DUMP2_AP|", "65001:7"]) {
        assert!(text.contains(part), "bgpdump shows no '{part}':\n{text}");
    }
    assert!(!text.contains("10.9.0.0/16"), "a refused path is no route:\n{text}");
}
