//! Anything may happen in any order; in the end everybody knows what they would know had they just started.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::lab::{Lab, MUCH, mesh_configs, prefix};
use crate::{
    AddPathMode, Asn, Community, LocalRoute, PeerConfig, SpeakerConfig,
    filter::{Action, Filter, Operation, Policy, PrefixOperator, Rule},
    update_group::Limits,
};

const LINKS: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)];

#[derive(Clone, Debug)]
enum Step {
    Originate(usize, u8, u8),
    Withdraw(usize, u8),
    Cut(usize),
    Mend(usize),
    Kill(usize),
    Start(usize, bool),
    Change(usize, usize, u8),
    Refresh(usize, usize),
    Stuck(usize, usize),
    Unstick(usize, usize),
    Wait(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (who, what) = (|| 0_usize..4, || 0_u8..4);
    prop_oneof![
        4 => (who(), what(), 0_u8..3).prop_map(|(a, b, c)| Step::Originate(a, b, c)),
        2 => (who(), what()).prop_map(|(a, b)| Step::Withdraw(a, b)),
        1 => (0_usize..5).prop_map(Step::Cut),
        1 => (0_usize..5).prop_map(Step::Mend),
        2 => who().prop_map(Step::Kill),
        3 => (who(), any::<bool>()).prop_map(|(a, b)| Step::Start(a, b)),
        4 => (who(), 0_usize..3, 0_u8..6).prop_map(|(a, b, c)| Step::Change(a, b, c)),
        1 => (who(), who()).prop_map(|(a, b)| Step::Refresh(a, b)),
        1 => (who(), who()).prop_map(|(a, b)| Step::Stuck(a, b)),
        1 => (who(), who()).prop_map(|(a, b)| Step::Unstick(a, b)),
        4 => (0_u16..20_000).prop_map(Step::Wait),
    ]
}

/// Changes what a peer is told.
fn change(peer: &mut PeerConfig, what: u8) {
    let rule = match what {
        0 => {
            peer.route_reflector_client ^= true;
            return;
        }
        2 => {
            peer.export = Policy::accept();
            return;
        }
        3 => Rule::new(Action::Reject).with_prefix(PrefixOperator::In, prefix("10.1.0.0/16")),
        4 => Rule {
            operations: vec![Operation::PrependAsPath(vec![Asn(77)])],
            ..Rule::new(Action::Accept)
        },
        _ => Rule::new(Action::Reject).with_prefix(PrefixOperator::In, prefix("10.2.0.0/16")),
    };
    let filter = Filter { name: "f".into(), rules: vec![rule] };
    peer.export = Policy { filters: vec![Arc::new(filter)], default: Action::Accept };
}

fn route(variant: u8) -> LocalRoute {
    let communities = vec![Community(u32::from(variant))];
    LocalRoute { communities, ..LocalRoute::default() }
}

/// Who knows what, without the names of paths.
fn tables(lab: &mut Lab) -> Vec<Vec<String>> {
    let count = lab.speakers.len();
    let table = |index| {
        let rib = lab.speaker(index).snapshot(true).rib;
        let paths = rib.iter().flat_map(|entry| {
            let line = |path: &crate::snapshot::PathSnapshot| {
                let attributes = &path.attributes;
                format!("{} {:?} {} {attributes:?}", entry.prefix, path.peer, path.stale)
            };
            entry.paths.iter().map(line)
        });
        let mut lines: Vec<String> = paths.collect();
        lines.sort();
        lines
    };
    (0..count).map(table).collect()
}

struct World {
    lab: Lab,
    configs: Vec<SpeakerConfig>,
    routes: BTreeMap<(usize, u8), u8>,
}

impl World {
    fn start(&mut self, who: usize, restarting: bool) {
        if self.lab.speakers[who].is_some() {
            return;
        }
        let config = SpeakerConfig { restarting, ..self.configs[who].clone() };
        self.lab.fibs[who].clear();
        self.lab.start(who, config);
        self.originate(who);
    }

    fn originate(&mut self, who: usize) {
        for ((_, what), variant) in self.routes.iter().filter(|((owner, _), _)| *owner == who) {
            let prefix = prefix(&format!("10.{what}.0.0/16"));
            self.lab.speaker(who).originate(prefix, route(*variant));
        }
    }

    fn step(&mut self, step: &Step) {
        let now = self.lab.now;
        match *step {
            Step::Originate(who, what, variant) => {
                self.routes.insert((who, what), variant);
                if self.lab.speakers[who].is_some() {
                    self.originate(who);
                }
            }
            Step::Withdraw(who, what) => {
                self.routes.remove(&(who, what));
                if self.lab.speakers[who].is_some() {
                    self.lab.withdraw(who, &format!("10.{what}.0.0/16"));
                }
            }
            Step::Cut(link) => self.lab.cut(LINKS[link].0, LINKS[link].1),
            Step::Mend(link) => self.lab.mend(LINKS[link].0, LINKS[link].1),
            Step::Kill(who) => self.lab.kill(who),
            Step::Start(who, restarting) => self.start(who, restarting),
            Step::Change(who, which, what) => {
                let peers = &mut self.configs[who].peers;
                let count = peers.len();
                match what {
                    // On all sessions: with some only, two speakers may prefer each other's way to their own, and then never
                    // agree, whatever the implementation.
                    1 => peers.iter_mut().for_each(|peer| peer.graceful_shutdown ^= true),
                    _ => change(&mut peers[which % count], what),
                }
                let config = self.configs[who].clone();
                if let Some(speaker) = &mut self.lab.speakers[who] {
                    speaker.configure(config, now);
                }
            }
            Step::Refresh(who, whom) => {
                if let Some(speaker) = &mut self.lab.speakers[who] {
                    let peer = format!("r{whom}");
                    // Its session may be down.
                    drop(speaker.operate(&peer, &crate::PeerAction::RefreshIn, now));
                }
            }
            Step::Stuck(reader, writer) => drop(self.lab.stuck.insert((reader, writer))),
            Step::Unstick(reader, writer) => self.unstick(reader, writer),
            Step::Wait(milliseconds) => {
                self.lab.run_within(Duration::from_millis(milliseconds.into()), 4 * MUCH);
            }
        }
    }

    fn unstick(&mut self, reader: usize, writer: usize) {
        self.lab.stuck.remove(&(reader, writer));
        if self.lab.speakers[writer].is_some() {
            self.lab.unstick(reader, writer);
        }
    }

    fn settle(&mut self) {
        for (a, b) in LINKS {
            self.lab.mend(a, b);
        }
        for who in 0..4 {
            self.start(who, false);
            for other in 0..4 {
                self.unstick(who, other);
            }
        }
        self.lab.come_to_rest(90);
    }
}

proptest! {
    // What fails is told after a minute, as short as it is then, with its seed.
    #![proptest_config(ProptestConfig {
        cases: 64,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_ends_where_a_fresh_start_ends(
        steps in proptest::collection::vec(any_step(), 1..60),
        systems in 0_usize..3,
        add_path in any::<bool>(),
        slice in proptest::option::of(1_usize..4),
        lag in proptest::option::of(1_usize..400),
    ) {
        let asns = [[1, 1, 1, 2], [1, 2, 3, 4], [1, 1, 1, 1]][systems];
        let mut configs = mesh_configs(&asns, &LINKS);
        let mode = if add_path { AddPathMode::Both } else { AddPathMode::None };
        let peers = configs.iter_mut().flat_map(|config| &mut config.peers);
        peers.for_each(|peer| peer.add_path = mode);
        let mut lab = Lab::new(configs.clone());
        if let Some(slice) = slice {
            lab.work_in_slices(slice);
        }
        if let Some(lag) = lag {
            lab.keep_little(Limits { lag, enough: 100, step: 2 });
        }
        let mut world = World { lab, configs, routes: BTreeMap::new() };
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        let World { mut lab, configs, routes } = world;
        let lab_fresh = Lab::new(configs.clone());
        let mut fresh = World { lab: lab_fresh, configs, routes };
        (0..4).for_each(|who| fresh.originate(who));
        fresh.lab.come_to_rest(90);
        prop_assert_eq!(tables(&mut lab), tables(&mut fresh.lab), "{}", lab.tell());
        prop_assert_eq!(&lab.fibs, &fresh.lab.fibs);
    }
}
