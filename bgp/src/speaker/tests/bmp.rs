use std::time::Duration;

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::lab::{Lab, config, peer, prefix};
use crate::{
    PeerAction, PeerType, SpeakerConfig,
    attr::{self, Context},
    bmp::{Collector, Taken},
    filter::{Action, Filter, Policy, PrefixOperator, Rule},
    wire::{Notification, next_frame, update::Parts},
};

fn collector() -> &'static str {
    "192.0.2.9:1790"
}

/// Speaker 0 announces, speaker 1 is watched; its policy refuses 10.9.0.0/16.
fn watched() -> Lab {
    let mut configs = vec![config(0, 1), config(1, 2)];
    configs[0].peers.push(peer(1, 2));
    configs[1].peers.push(peer(0, 1));
    let stops = Rule::new(Action::Reject).with_prefix(PrefixOperator::Equal, prefix("10.9.0.0/16"));
    let filter = Filter { name: "stops".into(), rules: vec![stops] };
    configs[1].peers[0].import = Policy { filters: vec![filter.into()], default: Action::Accept };
    configs[1].collectors.push(Collector::new(collector(), "r1"));
    Lab::new(configs)
}

fn connect(lab: &mut Lab) {
    let now = lab.now;
    lab.speaker(1).bmp_connected(collector(), Duration::from_secs(1_000_000), now);
}

fn take(lab: &mut Lab) -> Vec<Bytes> {
    let now = lab.now;
    let mut all = Vec::new();
    loop {
        match lab.speaker(1).bmp_take(collector(), 1000, now) {
            Taken::Messages(messages) if messages.is_empty() => return all,
            Taken::Messages(messages) => all.extend(messages),
            Taken::TooSlow => panic!("too slow"),
        }
    }
}

fn check(lab: &mut Lab, expected: &Expect) {
    let lines: Vec<String> = take(lab).iter().map(|message| tell(message)).collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

/// One message in a line.
fn tell(message: &[u8]) -> String {
    let (head, body) = message.split_at(6);
    assert_eq!(head[0], 3, "version");
    let length = u32::from_be_bytes(head[1..5].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), message.len());
    match head[5] {
        4 => {
            let text = String::from_utf8_lossy(&body[4..]);
            return format!("initiation {}", text.replace(char::is_control, "."));
        }
        5 => return format!("termination {body:?}"),
        _ => (),
    }
    let (header, rest) = body.split_at(42);
    let whose = match (header[0], header[1]) {
        (3, 0) => "loc-rib".to_owned(),
        (0, 0) => format!("10.0.0.{} pre", header[25]),
        (0, 0x40) => format!("10.0.0.{} post", header[25]),
        (0, 0x10) => format!("10.0.0.{} out pre", header[25]),
        (0, 0x50) => format!("10.0.0.{} out post", header[25]),
        other => panic!("{other:?}"),
    };
    let text = match head[5] {
        0 => update(rest),
        1 => {
            let count = u32::from_be_bytes(rest[..4].try_into().unwrap());
            let mut values = Vec::new();
            let mut rest = &rest[4..];
            while let [a, b, c, d, more @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*c, *d]));
                let value =
                    more[..length].iter().fold(0_u64, |sum, octet| sum << 8 | u64::from(*octet));
                values.push(format!("{}={value}", u16::from_be_bytes([*a, *b])));
                rest = &more[length..];
            }
            assert_eq!(usize::try_from(count).unwrap(), values.len());
            format!("statistics {}", values.join(" "))
        }
        2 => match rest[0] {
            reason @ (1 | 3) => {
                let notification = next_frame(&rest[1..], 4096).unwrap().unwrap();
                let notification = Notification::decode(notification.body).unwrap();
                format!("down {reason}: {notification}")
            }
            reason => format!("down {reason} {:?}", &rest[1..]),
        },
        3 => {
            let sent = next_frame(&rest[20..], 4096).unwrap().unwrap();
            let received = next_frame(&rest[20 + sent.length()..], 4096).unwrap().unwrap();
            let open = |body| crate::wire::Open::decode(body).unwrap().asn;
            let information = &rest[20 + sent.length() + received.length()..];
            let name = String::from_utf8_lossy(information.get(4..).unwrap_or_default());
            format!("up, AS {} and {} {name}", open(sent.body), open(received.body))
        }
        other => panic!("type {other}"),
    };
    let seconds = u32::from_be_bytes(header[34..38].try_into().unwrap());
    assert!((999_000..1_001_000).contains(&seconds), "{seconds}");
    format!("{whose}: {}", text.trim_end())
}

fn update(message: &[u8]) -> String {
    let frame = next_frame(message, 65535).unwrap().unwrap();
    assert_eq!(frame.length(), message.len());
    let parts = Parts::find(frame.body, crate::Families::NONE).unwrap();
    if let Some(family) = parts.end_of_rib() {
        return format!("end of {family}");
    }
    let mut words = Vec::new();
    words.extend(parts.withdrawn.iter().map(|item| format!("-{}", item.prefix)));
    let announced = parts.announced.iter().map(|item| format!("+{}", item.prefix));
    words.extend(announced);
    if !parts.announced.is_empty() {
        let context = Context { peer_type: PeerType::External, four_octet_as: true };
        let attributes = attr::decode(parts.section, context).unwrap().attributes;
        words.push(format!("[{}]", attributes.as_path));
    }
    words.join(" ")
}

#[test]
fn a_collector_hears_the_table_and_then_what_changes() {
    let mut lab = watched();
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "10.9.0.0/16");
    lab.originate(1, "10.2.0.0/16");
    lab.run(5);
    connect(&mut lab);
    check(
        &mut lab,
        &expect![[r#"
        initiation Voile 0.1.0....r1
        loc-rib: up, AS 2 and 2 global
        10.0.0.1 pre: up, AS 2 and 1
        10.0.0.1 pre: +10.1.0.0/16 +10.9.0.0/16 [1]
        10.0.0.1 post: +10.1.0.0/16 [1]
        loc-rib: +10.2.0.0/16 []
        loc-rib: +10.1.0.0/16 [1]
        loc-rib: end of ipv4
        loc-rib: end of ipv6
        10.0.0.1 pre: end of ipv4
        10.0.0.1 post: end of ipv4
    "#]],
    );
    lab.originate(0, "10.3.0.0/16");
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.1 pre: -10.1.0.0/16
        10.0.0.1 post: -10.1.0.0/16
        loc-rib: -10.1.0.0/16
        10.0.0.1 pre: +10.3.0.0/16 [1]
        10.0.0.1 post: +10.3.0.0/16 [1]
        loc-rib: +10.3.0.0/16 [1]
    "#]],
    );
    // Nothing that is the same again.
    lab.run(60);
    assert!(take(&mut lab).is_empty());
}

#[test]
fn sessions_and_policy_come_and_go() {
    let mut lab = watched();
    lab.originate(0, "10.9.0.0/16");
    connect(&mut lab);
    lab.run(5);
    check(
        &mut lab,
        &expect![[r#"
        initiation Voile 0.1.0....r1
        loc-rib: up, AS 2 and 2 global
        10.0.0.1 pre: up, AS 2 and 1
        10.0.0.1 pre: +10.9.0.0/16 [1]
        10.0.0.1 post: -10.9.0.0/16
        10.0.0.1 pre: +10.9.0.0/16 [1]
        loc-rib: end of ipv4
        loc-rib: end of ipv6
        10.0.0.1 pre: end of ipv4
        10.0.0.1 post: end of ipv4
    "#]],
    );
    let mut open = lab.speaker(1).config().clone();
    open.peers[0].import = Policy::accept();
    let now = lab.now;
    lab.speaker(1).configure(open, now);
    lab.run(5);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.1 pre: +10.9.0.0/16 [1]
        10.0.0.1 post: +10.9.0.0/16 [1]
        loc-rib: +10.9.0.0/16 [1]
    "#]],
    );
    let now = lab.now;
    lab.speaker(1).bmp_statistics(collector(), now);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.1 pre: statistics 0=0 7=1 11=0 15=0
        loc-rib: statistics 8=1 10=1 10=0
    "#]],
    );
    lab.speaker(0).operate("r1", &PeerAction::reset(""), now).unwrap();
    lab.run(10);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.1 pre: down 3: 6/9 hard reset (6/4 administrative reset)
        10.0.0.1 pre: up, AS 2 and 1
        10.0.0.1 pre: +10.9.0.0/16 [1]
        10.0.0.1 post: +10.9.0.0/16 [1]
        loc-rib: +10.9.0.0/16 [1]
        10.0.0.1 pre: end of ipv4
        10.0.0.1 post: end of ipv4
    "#]],
    );
    // Not wanted any more: nothing is left of it.
    let none = SpeakerConfig { collectors: Vec::new(), ..lab.speaker(1).config().clone() };
    let now = lab.now;
    lab.speaker(1).configure(none, now);
    lab.originate(0, "10.4.0.0/16");
    lab.run(1);
    assert!(take(&mut lab).is_empty());
}

#[test]
fn who_is_too_slow_begins_anew() {
    let mut lab = watched();
    lab.run(5);
    connect(&mut lab);
    drop(take(&mut lab));
    // Every change counts once, however often it happens: it takes very many prefixes.
    for number in 0..(1_u32 << 19) + 1 {
        let prefix = crate::Prefix::new(std::net::Ipv4Addr::from(number << 8).into(), 24).unwrap();
        lab.speaker(1).originate(prefix, crate::LocalRoute::default());
    }
    while lab.speaker(1).poll_output().is_some() {}
    let now = lab.now;
    assert_eq!(lab.speaker(1).bmp_take(collector(), 1000, now), Taken::TooSlow);
    lab.speaker(1).bmp_closed(collector());
    connect(&mut lab);
    let messages = take(&mut lab);
    let end = tell(messages.last().unwrap());
    assert!(end.contains("end of"), "{end}");
    assert!(messages.len() > 500, "{}", messages.len());
}

/// Speaker 1 passes on to 2 what it hears from 0; its export policy refuses 10.9.0.0/16 and prefers nothing.
fn passing_on() -> Lab {
    let mut configs = super::lab::mesh_configs(&[1, 2, 3], &[(0, 1), (1, 2)]);
    configs[1].peers[1].export = no_nine();
    let mut collector = Collector::new(collector(), "r1");
    collector.views = crate::bmp::Views::NONE;
    assert!(collector.views.add("adj-rib-out-pre") && collector.views.add("adj-rib-out-post"));
    assert!(!collector.views.add("adj-rib-out"));
    configs[1].collectors.push(collector);
    Lab::new(configs)
}

fn no_nine() -> Policy {
    let stops = Rule::new(Action::Reject).with_prefix(PrefixOperator::Equal, prefix("10.9.0.0/16"));
    let filter = Filter { name: "stops".into(), rules: vec![stops] };
    Policy { filters: vec![filter.into()], default: Action::Accept }
}

#[test]
fn a_collector_hears_what_peers_are_told() {
    let mut lab = passing_on();
    lab.originate(0, "10.1.0.0/16");
    lab.originate(0, "10.9.0.0/16");
    lab.run(5);
    connect(&mut lab);
    check(
        &mut lab,
        &expect![[r#"
        initiation Voile 0.1.0....r1
        10.0.0.1 pre: up, AS 2 and 1
        10.0.0.3 pre: up, AS 2 and 3
        10.0.0.3 out pre: +10.1.0.0/16 +10.9.0.0/16 [1]
        10.0.0.3 out post: +10.1.0.0/16 [2 1]
        10.0.0.1 out pre: end of ipv4
        10.0.0.1 out post: end of ipv4
        10.0.0.3 out pre: end of ipv4
        10.0.0.3 out post: end of ipv4
    "#]],
    );
    // What changes, also back and forth.
    lab.originate(0, "10.2.0.0/16");
    lab.withdraw(0, "10.1.0.0/16");
    lab.run(1);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.1 out pre: -10.1.0.0/16 -10.2.0.0/16
        10.0.0.3 out pre: -10.1.0.0/16
        10.0.0.1 out post: -10.1.0.0/16 -10.2.0.0/16
        10.0.0.3 out post: -10.1.0.0/16
        10.0.0.3 out pre: +10.2.0.0/16 [1]
        10.0.0.3 out post: +10.2.0.0/16 [2 1]
    "#]],
    );
    // The policy lets everything out now.
    let mut open = lab.speaker(1).config().clone();
    open.peers[1].export = Policy::accept();
    let now = lab.now;
    lab.speaker(1).configure(open, now);
    lab.run(5);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.3 out pre: +10.9.0.0/16 +10.2.0.0/16 [1]
        10.0.0.3 out post: +10.9.0.0/16 +10.2.0.0/16 [2 1]
        10.0.0.3 out pre: end of ipv4
        10.0.0.3 out post: end of ipv4
    "#]],
    );
    // A peer that comes later is walked through the table.
    lab.speaker(2).operate("r1", &PeerAction::reset(""), now).unwrap();
    lab.run(10);
    check(
        &mut lab,
        &expect![[r#"
        10.0.0.3 pre: down 3: 6/9 hard reset (6/4 administrative reset)
        10.0.0.3 pre: up, AS 2 and 3
        10.0.0.3 out pre: +10.9.0.0/16 +10.2.0.0/16 [1]
        10.0.0.3 out post: +10.9.0.0/16 +10.2.0.0/16 [2 1]
        10.0.0.3 out pre: end of ipv4
        10.0.0.3 out post: end of ipv4
    "#]],
    );
}

#[test]
fn a_collector_that_takes_nothing_costs_little() {
    let mut lab = watched();
    lab.run(5);
    connect(&mut lab);
    // It never asks. Sessions come and go, and so do more prefixes than may wait.
    for _ in 0..2100 {
        let now = lab.now;
        lab.speaker(0).operate("r1", &PeerAction::reset(""), now).unwrap();
        lab.run(2);
    }
    let waiting = |lab: &mut Lab| lab.speaker(1).snapshot(false).collectors[0].waiting;
    for number in 0..(1_u32 << 19) + 10 {
        let prefix = crate::Prefix::new(std::net::Ipv4Addr::from(number << 8).into(), 24).unwrap();
        lab.speaker(1).originate(prefix, crate::LocalRoute::default());
        if number % 10_000 == 0 {
            while lab.speaker(1).poll_output().is_some() {}
            assert!(waiting(&mut lab) <= 1 << 19);
        }
    }
    while lab.speaker(1).poll_output().is_some() {}
    assert_eq!(waiting(&mut lab), 0, "nothing is kept for one that is cut off");
    let now = lab.now;
    assert_eq!(lab.speaker(1).bmp_take(collector(), 1000, now), Taken::TooSlow);
}
