//! TCP-AO (RFC 5925) between speakers of ours: what the kernel makes of the keys, what is on the wire, and what the operator
//! reads when keys differ.
//!
//! Few kernels have it. Where it is missing the refusal is checked instead; `tests/kernel/build.sh` makes a kernel that has it,
//! and `tests/kernel/run.sh IMAGE PROGRAM` runs this program there.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test: what fails here fails it, with the reason"
)]

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use serde_json::Value;
use voile_tests::{
    bgp::{Lan, PATIENCE, Voile, wait_text},
    built, can_make_namespaces, skip, wait_for,
};

const SHA1: &str = "{ id = 1, secret = \"one\" }";
const CMAC: &str = "{ send-id = 7, receive-id = 9, algorithm = \"aes-cmac\", secret = \"two\" }";
/// The other side's half of [`CMAC`].
const CMAC_BACK: &str =
    "{ send-id = 9, receive-id = 7, algorithm = \"aes-cmac\", secret = \"two\" }";

fn keys(list: &str) -> String {
    format!("tcp-ao = [{list}]")
}

/// The section of a peer; `who` is its `address` or `range`.
fn peer(name: &str, who: &str, asn: u32, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"{name}\"\n{who}\nas = {asn}\nhold-time = 9\nconnect-retry = 1\nidle-hold = 0.2\n\
         idle-hold-max = 1\n{more}\n"
    )
}

fn host(number: u8, more: &str) -> String {
    let who = format!("address = \"10.0.0.{number}\"");
    peer(&format!("r{number}"), &who, 65000 + u32::from(number), more)
}

fn network(prefix: &str) -> String {
    format!("[[network]]\nprefix = \"{prefix}\"\n")
}

/// What `voile-bgpd check` says of a router with these sections.
fn check(lan: &Lan, body: &str) -> Result<String, String> {
    let text = format!("[router]\nas = 65001\nrouter-id = \"10.0.0.1\"\n{body}");
    let file = lan.file(1, "checked.toml", &text);
    let program = built("voile-bgpd");
    lan.host(1).ask(&program.to_string_lossy(), &["check", &file.to_string_lossy()])
}

/// Makes a network where the kernel has TCP-AO. Elsewhere the speaker says what is missing, and the test is skipped.
fn lan(test: &str, hosts: usize) -> Option<Lan> {
    if !can_make_namespaces() {
        skip(test, "needs root");
        return None;
    }
    let lan = Lan::new(hosts);
    let Err(refusal) = check(&lan, &host(2, &keys(SHA1))) else { return Some(lan) };
    for part in ["checked.toml", "cannot set the TCP-AO keys of r2", "CONFIG_TCP_AO"] {
        assert!(refusal.contains(part), "no {part:?} in {refusal}");
    }
    skip(test, "this kernel has no TCP-AO; see tests/kernel");
    None
}

fn has(voile: &Voile, name: &str, cause: &str) {
    let _ = voile.wait_peer(name, |peer| {
        let mut history = peer["history"].as_array().unwrap().iter();
        history.any(|each| each["cause"].as_str().is_some_and(|text| text.contains(cause)))
    });
}

/// The kernel's count of segments that it found signed as agreed, in a host's namespace.
fn signed(lan: &Lan, number: usize) -> u64 {
    let text = lan.host(number).output("cat", &["/proc/thread-self/net/netstat"]);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(name, _)| *name == "TCPAOGood").unwrap().1.parse().unwrap()
}

/// What passes in a namespace, on all interfaces.
struct Sniffer(OwnedFd);

/// A TCP segment of a BGP session.
#[derive(Debug)]
struct Segment {
    is_ipv6: bool,
    has_data: bool,
    options: Vec<u8>,
}

impl Sniffer {
    fn open(lan: &Lan, number: usize) -> Self {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let open = || socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll).unwrap();
        Self(lan.host(number).run(open))
    }

    /// Takes what the kernel has kept so far.
    fn segments(&self) -> Vec<Segment> {
        let mut frame = [0; 2048];
        let mut found = Vec::new();
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            found.extend(segment(&frame[..length]));
        }
        found
    }
}

/// Takes an Ethernet frame apart.
fn segment(frame: &[u8]) -> Option<Segment> {
    let is_ipv6 = match frame.get(12..14)? {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => true,
        _ => return None,
    };
    let packet = frame.get(14..)?;
    let (header, protocol) =
        if is_ipv6 { (40, packet[6]) } else { (usize::from(packet[0] & 15) * 4, packet[9]) };
    let length = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let end = if is_ipv6 { 40 + length(4) } else { length(2) };
    let tcp = packet.get(header..end).filter(|_| protocol == 6)?;
    let ports = [&tcp[0..2], &tcp[2..4]];
    let data = usize::from(tcp[12] >> 4) * 4;
    let (mut options, mut rest) = (Vec::new(), &tcp[20..data]);
    while let [kind, more @ ..] = rest {
        rest = match kind {
            0 => &[],
            1 => more,
            kind => {
                options.push(*kind);
                &rest[usize::from(rest[1])..]
            }
        };
    }
    // Where nobody listens yet, there is no key to sign the refusal with.
    let is_reset = tcp[13] & 4 != 0;
    let session = ports.contains(&&179_u16.to_be_bytes()[..]) && !is_reset;
    session.then_some(Segment { is_ipv6, has_data: tcp.len() > data, options })
}

/// Both algorithms, both families: every segment carries the option (kind 29), and routes pass.
#[test]
fn every_segment_is_signed() {
    let Some(lan) = lan("every_segment_is_signed", 3) else { return };
    let sniffer = Sniffer::open(&lan, 1);
    let six = peer("r3", "address = \"fd00::3\"", 65003, &keys(CMAC));
    let one =
        Voile::start(&lan, 1, 65001, &(host(2, &keys(SHA1)) + &six + &network("10.1.0.0/24")));
    let two = Voile::start(&lan, 2, 65002, &(host(1, &keys(SHA1)) + &network("10.2.0.0/24")));
    let back = peer("r1", "address = \"fd00::1\"", 65001, &keys(CMAC_BACK));
    let three = Voile::start(&lan, 3, 65003, &(back + &network("fd00:3::/64")));
    let _ = one.wait_route("10.2.0.0/24", "r2");
    let _ = one.wait_route("fd00:3::/64", "r3");
    let _ = two.wait_route("10.1.0.0/24", "r1");
    three.wait_established("r1");
    for number in 1..=3 {
        assert!(signed(&lan, number) > 0, "host {number} counted no signed segment");
    }
    let segments = sniffer.segments();
    for segment in &segments {
        assert!(segment.options.contains(&29), "without TCP-AO: {segment:?}");
        assert!(!segment.options.contains(&19), "with MD5: {segment:?}");
    }
    for is_ipv6 in [false, true] {
        let data = segments.iter().filter(|each| each.has_data && each.is_ipv6 == is_ipv6).count();
        assert!(data >= 4, "a session has more to say: {segments:?}");
    }
}

/// A wrong secret, a key that the other side does not have, and no key at all: no session, and the cause in words.
#[test]
fn keys_that_differ_are_named_as_the_cause() {
    let Some(lan) = lan("keys_that_differ_are_named_as_the_cause", 2) else { return };
    let one = Voile::start(&lan, 1, 65001, &host(2, &keys(SHA1)));
    let wrong = "{ id = 1, secret = \"another\" }";
    let two = Voile::start(&lan, 2, 65002, &host(1, &keys(wrong)));
    has(&one, "r2", "TCP-AO mismatch suspected");
    has(&two, "r1", "TCP-AO mismatch suspected");
    let strangers = [
        keys("{ id = 2, secret = \"one\" }"),
        keys("{ id = 1, algorithm = \"aes-cmac\", secret = \"one\" }"),
        "password = \"one\"".to_owned(),
        String::new(),
    ];
    for stranger in strangers {
        two.configure(&host(1, &stranger));
        let refused = |peer: &Value| {
            let last = peer["lastError"].as_str().unwrap_or_default();
            peer["state"] != "Established" && last.contains("TCP-AO mismatch suspected")
        };
        let _ = one.wait_peer("r2", refused);
        let peer = two.peer("r1").unwrap();
        assert_eq!(peer["received"]["opens"], 0, "with {stranger:?}: {peer:#}");
    }
    two.configure(&host(1, &keys(SHA1)));
    one.wait_established("r2");
    two.wait_established("r1");
}

/// An operator goes from one key to the next: first both sides accept it, then both use it, then the old one is removed. The
/// kernel's routes stay all the time.
#[test]
fn a_key_is_rotated_without_losing_routes() {
    let Some(lan) = lan("a_key_is_rotated_without_losing_routes", 2) else { return };
    let ours = |list: &str| "install-routes = true\n".to_owned() + &host(2, &keys(list));
    let theirs = |list: &str| host(1, &keys(list)) + &network("10.2.0.0/24");
    let one = Voile::start(&lan, 1, 65001, &ours(SHA1));
    let two = Voile::start(&lan, 2, 65002, &theirs(SHA1));
    let _ = one.wait_route("10.2.0.0/24", "r2");
    wait_text("our kernel", &["10.2.0.0/24"], || Ok(lan.routes(1)));
    let steps = [
        (format!("{SHA1}, {CMAC}"), format!("{SHA1}, {CMAC_BACK}")),
        (format!("{CMAC}, {SHA1}"), format!("{CMAC_BACK}, {SHA1}")),
        (CMAC.to_owned(), CMAC_BACK.to_owned()),
    ];
    for (near, far) in steps {
        for side in [0, 1] {
            let before = one.peer("r2").unwrap()["received"]["opens"].as_u64().unwrap();
            if side == 0 {
                one.configure(&ours(&near));
            } else {
                two.configure(&theirs(&far));
            }
            wait_for("the session with the keys of both", PATIENCE, || {
                let routes = lan.routes(1);
                assert!(routes.contains("10.2.0.0/24"), "the route is lost: {routes}");
                let peer = one.peer("r2")?;
                let again = peer["received"]["opens"].as_u64() > Some(before);
                let fresh = one.paths("10.2.0.0/24")?.iter().all(|path| path["stale"] == false);
                let done = again && fresh && peer["state"] == "Established";
                if done { Ok(()) } else { Err(format!("{peer:#}\n{}", one.log())) }
            });
        }
    }
    has(&one, "r2", "TCP-AO keys changed");
}

/// One key for whoever connects from a prefix; what the kernel cannot tell apart is refused when the file is read.
#[test]
fn dynamic_neighbours_and_conflicts() {
    let Some(lan) = lan("dynamic_neighbours_and_conflicts", 3) else { return };
    let range = |more: &str| peer("rack", "range = \"10.0.0.0/24\"", 65002, more);
    let one = Voile::start(&lan, 1, 65001, &(range(&keys(SHA1)) + &network("10.1.0.0/24")));
    let two = Voile::start(&lan, 2, 65002, &host(1, &keys(SHA1)));
    let _ = two.wait_route("10.1.0.0/24", "r1");
    let three = Voile::start(&lan, 3, 65002, &host(1, ""));
    wait_for("the router without a key", PATIENCE, || {
        let peer = three.peer("r1")?;
        assert_eq!(peer["received"]["opens"], 0, "{peer:#}");
        let last = peer["lastError"].as_str().unwrap_or_default();
        if last.contains("does not answer") { Ok(()) } else { Err(format!("{peer:#}")) }
    });
    drop(three);

    let refused = |body: &str, parts: &[&str]| {
        let error = check(&lan, body).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    };
    // Both name 10.0.0.2; the kernel would not know which signature to ask for.
    let md5 = "password = \"one\"";
    let either = ["cannot set", "10.0.0.", "TCP MD5 and TCP-AO"];
    refused(&(range(md5) + &host(2, &keys(SHA1))), &either);
    refused(&(range(&keys(SHA1)) + &host(2, md5)), &either);
    refused(&host(2, &format!("{md5}\n{}", keys(SHA1))), &["line", "remove password"]);
    refused(
        &(range(&keys(SHA1)) + &host(2, &keys(SHA1))),
        &["10.0.0.", "another key with the same id"],
    );
    let other = "{ id = 2, secret = \"three\" }";
    assert!(check(&lan, &(range(&keys(SHA1)) + &host(2, &keys(other)))).is_ok());
    // The running configuration stays.
    one.configure(&(range(md5) + &host(2, &keys(SHA1))));
    wait_text("the complaint", &["kept the old configuration"], || Ok(one.log()));
    two.wait_established("r1");
    assert_eq!(two.peer("r1").unwrap()["flaps"], 0);
}
