use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PACKET: Packet = Packet {
    diagnostic: Diagnostic::NEIGHBOUR_DOWN,
    state: State::Init,
    poll: true,
    is_final: false,
    control_plane_independent: true,
    demand: false,
    detect_multiplier: 3,
    my_discriminator: 0x0102_0304,
    your_discriminator: 0x0a0b_0c0d,
    desired_min_tx: Duration::from_millis(300),
    required_min_rx: Duration::from_secs(1),
};

#[test]
fn packets_both_ways() {
    let bytes = PACKET.encode();
    assert_eq!(hex(&bytes), "23a8031801020304 0a0b0c0d000493e0 000f424000000000".replace(' ', ""));
    assert_eq!(Packet::decode(&bytes), Ok(PACKET));
}

/// RFC 5880 §6.8.6.
#[test]
fn unusable_packets_are_dropped() {
    let good = PACKET.encode();
    let with = |index: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[index] = value;
        bytes
    };
    let mut nameless = good.to_vec();
    nameless[8..12].fill(0);
    let mut anonymous = good.to_vec();
    anonymous[4..8].fill(0);
    for (bytes, why) in [
        (with(0, 0x43), "version is not 1"),
        (with(3, 23), "length does not fit"),
        (with(3, 25), "length does not fit"),
        (good[..23].to_vec(), "length does not fit"),
        (good[..3].to_vec(), "too short"),
        (with(2, 0), "detection multiplier is 0"),
        (with(1, 0xa9), "multipoint"),
        (with(1, 0xac), "authenticated, but none is configured"),
        (anonymous, "its own discriminator is 0"),
        (nameless, "our discriminator is 0"),
    ] {
        let error = Packet::decode(&bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("not a usable BFD packet: {why}"));
    }
    // Down may come without our discriminator, and bytes after the length do not count.
    let mut first =
        Packet { state: State::Down, your_discriminator: 0, ..PACKET }.encode().to_vec();
    first.push(9);
    assert!(Packet::decode(&first).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_harm_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }
}

/// Two machines and a link with a delay of 1 ms.
struct Link {
    now: Instant,
    start: Instant,
    ends: [Machine; 2],
    on_the_way: Vec<(Instant, usize, Packet)>,
    cut: bool,
    sent: [usize; 2],
    story: String,
}

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time; never read again")]
fn epoch() -> Instant {
    Instant::now()
}

impl Link {
    fn new(timings: [Timing; 2]) -> Self {
        let now = epoch();
        let [a, b] = timings;
        Self {
            now,
            start: now,
            ends: [Machine::new(a, 1, 1, now), Machine::new(b, 2, 2, now)],
            on_the_way: Vec::new(),
            cut: false,
            sent: [0, 0],
            story: String::new(),
        }
    }

    fn milliseconds(&self) -> u128 {
        self.now.duration_since(self.start).as_millis()
    }

    fn drain(&mut self) {
        for index in 0..2 {
            while let Some(packet) = self.ends[index].poll_transmit() {
                self.sent[index] += 1;
                if !self.cut {
                    // What travels are bytes.
                    let packet = Packet::decode(&packet.encode()).unwrap();
                    self.on_the_way.push((self.now + Duration::from_millis(1), 1 - index, packet));
                }
            }
            while let Some(change) = self.ends[index].poll_change() {
                let time = self.milliseconds();
                let admin = if change.administrative { ", on purpose" } else { "" };
                let Change { from, to, diagnostic, .. } = change;
                self.story += &format!("{time} {index}: {from} -> {to} ({diagnostic}{admin})\n");
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        loop {
            let timers = self.ends.iter().filter_map(Machine::poll_timeout);
            let next = timers.chain(self.on_the_way.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            let (due, later): (Vec<_>, Vec<_>) =
                self.on_the_way.drain(..).partition(|(at, ..)| *at <= now);
            self.on_the_way = later;
            for (_, to, packet) in due {
                self.ends[to].handle_packet(&packet, now);
            }
            self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
            self.drain();
        }
        self.now = end;
    }

    fn check(&mut self, expected: Expect) {
        expected.assert_eq(&std::mem::take(&mut self.story));
    }
}

const FAST: Timing = Timing {
    desired_min_tx: Duration::from_millis(50),
    required_min_rx: Duration::from_millis(50),
    detect_multiplier: 3,
};

#[test]
fn three_ways_up_and_down_by_silence() {
    let mut link = Link::new([FAST, FAST]);
    link.run(Duration::from_secs(5));
    link.check(expect![[r#"
        1 0: Down -> Init (no diagnostic)
        1 1: Down -> Init (no diagnostic)
        2 0: Init -> Up (no diagnostic)
        2 1: Init -> Up (no diagnostic)
    "#]]);
    // 75 to 100 % of 50 ms, after a slow start of at most 3 s.
    assert!((40..=134).contains(&link.sent[0]), "{}", link.sent[0]);
    assert_eq!(link.ends[0].detection_time(), Duration::from_millis(150));
    link.cut = true;
    link.run(Duration::from_secs(1));
    link.check(expect![[r#"
        5112 0: Up -> Down (control detection time expired)
        5116 1: Up -> Down (control detection time expired)
    "#]]);
    let quiet = link.sent[0];
    link.run(Duration::from_secs(10));
    // Slow again.
    assert!((9..=15).contains(&(link.sent[0] - quiet)), "{}", link.sent[0] - quiet);
    link.cut = false;
    link.run(Duration::from_secs(3));
    link.check(expect![[r#"
        16095 1: Down -> Init (no diagnostic)
        16096 0: Down -> Up (no diagnostic)
        16097 1: Init -> Up (no diagnostic)
    "#]]);
}

#[test]
fn the_slower_wish_counts() {
    let slow = Timing { required_min_rx: Duration::from_millis(400), ..FAST };
    let mut link = Link::new([FAST, slow]);
    link.run(Duration::from_secs(4));
    let before = link.sent;
    link.run(Duration::from_secs(4));
    // 0 sends every 300 to 400 ms, 1 every 37.5 to 50 ms.
    assert!((10..=14).contains(&(link.sent[0] - before[0])), "{}", link.sent[0] - before[0]);
    assert!((80..=110).contains(&(link.sent[1] - before[1])), "{}", link.sent[1] - before[1]);
    assert_eq!(link.ends[1].detection_time(), Duration::from_millis(1200));
}

/// RFC 5880 §6.8.3: slower intervals count once the other side knows, or it would see a failure.
#[test]
fn changing_intervals_is_no_failure() {
    let mut link = Link::new([FAST, FAST]);
    link.run(Duration::from_secs(4));
    link.story.clear();
    let slow = Timing {
        desired_min_tx: Duration::from_secs(1),
        required_min_rx: Duration::from_millis(500),
        detect_multiplier: 3,
    };
    let now = link.now;
    link.ends[0].set_timing(slow, now);
    link.run(Duration::from_secs(10));
    let now = link.now;
    link.ends[0].set_timing(FAST, now);
    link.run(Duration::from_secs(10));
    link.check(expect![""]);
    assert_eq!(link.ends[1].detection_time(), Duration::from_millis(150));
}

#[test]
fn shutting_down_is_told_as_such() {
    let mut link = Link::new([FAST, FAST]);
    link.run(Duration::from_secs(4));
    link.story.clear();
    let now = link.now;
    link.ends[0].shut_down(now);
    link.run(Duration::from_secs(4));
    link.check(expect![[r#"
        4000 0: Up -> AdminDown (administratively down, on purpose)
        4001 1: Up -> Down (neighbour signalled session down, on purpose)
    "#]]);
}

#[test]
fn one_that_restarts_is_found_again_under_its_new_number() {
    let mut link = Link::new([FAST, FAST]);
    link.run(Duration::from_secs(4));
    link.story.clear();
    link.ends[0] = Machine::new(FAST, 7, 7, link.now);
    link.run(Duration::from_secs(4));
    link.check(expect![[r#"
        4001 1: Up -> Down (neighbour signalled session down)
        4002 0: Down -> Init (no diagnostic)
        4003 1: Down -> Up (no diagnostic)
        4004 0: Init -> Up (no diagnostic)
    "#]]);
    assert_eq!(link.ends[0].state(), State::Up);
}

#[test]
fn a_receiver_that_wants_nothing_gets_nothing() {
    let deaf = Timing { required_min_rx: Duration::ZERO, ..FAST };
    let mut link = Link::new([FAST, deaf]);
    link.run(Duration::from_secs(4));
    let before = link.sent[0];
    link.run(Duration::from_secs(4));
    assert_eq!(link.sent[0], before);
}

proptest! {
    /// Whatever is lost on the way, both are up some seconds after the losses end.
    #[test]
    fn losses_leave_no_trace(cuts in proptest::collection::vec((1_u64..2000, any::<bool>()), 1..20)) {
        let mut link = Link::new([FAST, Timing { detect_multiplier: 1, ..FAST }]);
        for (time, cut) in cuts {
            link.cut = cut;
            link.run(Duration::from_millis(time));
        }
        link.cut = false;
        link.run(Duration::from_secs(6));
        prop_assert_eq!(link.ends[0].state(), State::Up, "{}", &link.story);
        prop_assert_eq!(link.ends[1].state(), State::Up);
    }
}
