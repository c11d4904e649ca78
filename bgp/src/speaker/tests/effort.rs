//! However many routes there are, and whatever happens to all of them, no step looks at more than a few slices of them.

use std::sync::Arc;

use super::lab::{Lab, mesh_configs, prefix};
use crate::{
    AddPathMode, Community, LocalRoute, PeerAction, Shutdown, SpeakerConfig,
    filter::{Action, Filter, Policy, PrefixOperator, Rule},
    speaker::InterfaceDown,
    update_group::Limits,
};

const ROUTES: u32 = 24_000;
/// Prefixes of a slice of decisions, and slots of a step of a walk.
const SLICE: usize = 150;

/// r1 and r2 have the routes, r0 has them from both and tells r3 and r4, in two groups.
fn lab(add_path: AddPathMode) -> Lab {
    let mut configs = mesh_configs(&[1, 2, 3, 4, 5], &[(0, 1), (0, 2), (0, 3), (0, 4)]);
    let peers = configs.iter_mut().flat_map(|config| &mut config.peers);
    peers.for_each(|peer| peer.add_path = add_path);
    configs[0].peers[3].local_pref = 7;
    let mut lab = Lab::new(configs);
    lab.work_in_slices(SLICE);
    lab.keep_little(Limits { step: SLICE, ..Limits::default() });
    lab.run(2);
    originate(&mut lab, 1, 0);
    originate(&mut lab, 2, 0);
    settle(&mut lab, "the routes come");
    assert_eq!(lab.fibs[4].len(), usize::try_from(ROUTES).unwrap());
    lab
}

fn text(number: u32) -> String {
    let [_, high, middle, low] = number.to_be_bytes();
    format!("10.{}.{}.{}/32", high + 1, middle, low)
}

/// Attributes are not those of another round, and seven prefixes share them.
fn originate(lab: &mut Lab, who: usize, round: u32) {
    for number in 0..ROUTES {
        let communities = vec![Community((round << 24) | (number / 7))];
        let route = LocalRoute { communities, ..LocalRoute::default() };
        lab.speaker(who).originate(prefix(&text(number)), route);
    }
}

/// Runs until all is quiet. What r0 did at once at most is a few slices.
fn settle(lab: &mut Lab, what: &str) {
    lab.run(60);
    let most = lab.most(0);
    // Looking at a slot is looking at it a dozen times, for the decision and for each group.
    assert!(most <= 60 * SLICE, "{what}: {most} looks at slots in one step");
    assert!(most > 0, "{what}: nothing was done");
}

fn change(lab: &mut Lab, what: &str, change: impl FnOnce(&mut SpeakerConfig)) {
    let mut config = lab.speaker(0).config().clone();
    change(&mut config);
    lab.configure(0, config);
    settle(lab, what);
}

fn rejecting(text: &str) -> Policy {
    let rule = Rule::new(Action::Reject).with_prefix(PrefixOperator::In, prefix(text));
    let filter = Filter { name: "f".into(), rules: vec![rule] };
    Policy { filters: vec![Arc::new(filter)], default: Action::Accept }
}

fn reconfigure_and_lose(add_path: AddPathMode) {
    let count = usize::try_from(ROUTES).unwrap();
    let mut lab = lab(add_path);
    change(&mut lab, "a peer gets another policy", |config| {
        config.peers[2].export = rejecting("10.1.0.0/18");
    });
    assert_eq!((lab.fibs[3].len(), lab.fibs[4].len()), (count - 0x4000, count));
    change(&mut lab, "a peer gets nothing any more", |config| {
        config.peers[2].export = Policy::reject();
    });
    assert_eq!(lab.fibs[3].len(), 0);
    change(&mut lab, "everybody goes to another group", |config| {
        config.peers[0].route_reflector_client = true;
        config.peers[2].export = Policy::accept();
    });
    assert_eq!((lab.fibs[3].len(), lab.fibs[4].len()), (count, count));
    change(&mut lab, "import policy", |config| config.peers[1].import = rejecting("10.1.0.0/18"));
    let now = lab.now;
    lab.speaker(0).operate("r3", &PeerAction::RefreshOut, now).unwrap();
    settle(&mut lab, "a refresh");
    for round in 1..4 {
        (0..ROUTES).for_each(|number| lab.withdraw(2, &text(number)));
        settle(&mut lab, "routes go");
        originate(&mut lab, 2, round);
        settle(&mut lab, "routes come back with other attributes");
    }
    lab.shutdown(1, Shutdown::Final);
    settle(&mut lab, "a peer goes");
    assert_eq!(lab.fibs[4].len(), count - 0x4000);
}

#[test]
fn a_change_for_all_routes_is_made_in_slices() {
    reconfigure_and_lose(AddPathMode::None);
}

#[test]
fn with_many_paths_too() {
    reconfigure_and_lose(AddPathMode::Both);
}

#[test]
fn a_restart_and_a_link_that_fails_are_worked_off_in_slices() {
    let mut lab = lab(AddPathMode::None);
    let config = SpeakerConfig { restarting: true, ..lab.speaker(0).config().clone() };
    lab.kill(0);
    lab.run(2);
    lab.start(0, config);
    settle(&mut lab, "a restart");
    assert!(lab.complete[0]);
    let networks = vec![prefix("10.0.0.2/32")];
    let down = InterfaceDown { interface: "eth0".into(), addresses: Vec::new(), networks };
    let now = lab.now;
    lab.speaker(0).handle_interface_down(down, now);
    settle(&mut lab, "a link fails");
    assert_eq!(lab.fibs[0].len(), usize::try_from(ROUTES).unwrap());
}
