use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::route::{PROTOCOL_BGP, PROTOCOL_STATIC, PROTOCOL_WORKLOAD};

/// Runs a script of facts and prints what the reconciler writes after each.
fn check(script: &[Step], expected: Expect) {
    let mut tracker = Tracker::new([PROTOCOL_WORKLOAD, PROTOCOL_BGP].into());
    let mut links = BTreeMap::new();
    let mut story = String::new();
    for step in script {
        step.run(&mut tracker, &mut links);
        story += &format!("{step:?}\n");
        for action in tracker.plan(|name| links.get(name).copied()) {
            match &action {
                Action::Add(route) => story += &format!("  add {route}\n"),
                Action::Replace(route) => story += &format!("  replace {route}\n"),
                Action::Delete(route) => story += &format!("  delete {route}\n"),
            }
            match action {
                Action::Delete(route) => tracker.lost(&route),
                Action::Add(route) | Action::Replace(route) => tracker.written(route),
            }
        }
    }
    expected.assert_eq(&story);
}

#[derive(Debug)]
enum Step {
    Set(&'static str, u8, &'static str),
    Unset(&'static str, u8),
    Kernel(&'static [(&'static str, u8, u32)]),
    Link(&'static str, u32),
    LinkGone(u32),
    Removed(&'static str, u8, u32),
    Sweep(u8),
}

impl Step {
    fn run(&self, tracker: &mut Tracker, links: &mut BTreeMap<String, u32>) {
        match self {
            Self::Set(prefix, protocol, "drop") => {
                tracker.set(Route::blackhole(net(prefix)).with_protocol(*protocol).normalized());
            }
            Self::Set(prefix, protocol, name) => {
                tracker
                    .set(Route::device(net(prefix), *name).with_protocol(*protocol).normalized());
            }
            Self::Unset(prefix, protocol) => tracker.unset(net(prefix), *protocol),
            Self::Kernel(routes) => {
                tracker.load(
                    routes
                        .iter()
                        .map(|(prefix, protocol, link)| device(prefix, *protocol, *link))
                        .collect(),
                );
            }
            Self::Link(name, index) => {
                links.insert((*name).to_owned(), *index);
                tracker.retry_pending(name);
            }
            Self::LinkGone(index) => {
                links.retain(|_, known| known != index);
                tracker.forget_interface(*index);
            }
            Self::Removed(prefix, protocol, link) => {
                tracker.lost(&device(prefix, *protocol, *link))
            }
            Self::Sweep(protocol) => tracker.allow_sweep(*protocol),
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn device(prefix: &str, protocol: u8, link: u32) -> Route {
    Route::device(net(prefix), link).with_protocol(protocol).normalized()
}

#[test]
fn a_restart_keeps_unknown_routes_until_the_sweep_is_allowed() {
    use Step::*;
    check(
        &[
            Link("cali1", 7),
            Kernel(&[("10.0.0.1/32", 80, 7), ("10.0.0.2/32", 80, 8), ("10.9.0.0/24", 186, 2)]),
            Set("10.0.0.1/32", 80, "cali1"),
            Sweep(80),
            Unset("10.9.0.0/24", 186),
        ],
        expect![[r#"
            Link("cali1", 7)
            Kernel([("10.0.0.1/32", 80, 7), ("10.0.0.2/32", 80, 8), ("10.9.0.0/24", 186, 2)])
            Set("10.0.0.1/32", 80, "cali1")
            Sweep(80)
              delete 10.0.0.2/32 dev #8 proto 80 metric 0
            Unset("10.9.0.0/24", 186)
        "#]],
    );
}

#[test]
fn what_we_withdraw_goes_at_once_and_what_others_remove_comes_back() {
    use Step::*;
    check(
        &[
            Kernel(&[]),
            Link("cali1", 7),
            Set("10.0.0.1/32", 80, "cali1"),
            Removed("10.0.0.1/32", 80, 7),
            Unset("10.0.0.1/32", 80),
        ],
        expect![[r#"
            Kernel([])
            Link("cali1", 7)
            Set("10.0.0.1/32", 80, "cali1")
              add 10.0.0.1/32 dev #7 proto 80 metric 0
            Removed("10.0.0.1/32", 80, 7)
              add 10.0.0.1/32 dev #7 proto 80 metric 0
            Unset("10.0.0.1/32", 80)
              delete 10.0.0.1/32 dev #7 proto 80 metric 0
        "#]],
    );
}

#[test]
fn a_route_waits_for_its_interface_and_follows_it() {
    use Step::*;
    check(
        &[Set("10.0.0.1/32", 80, "cali1"), Link("cali1", 7), LinkGone(7), Link("cali1", 9)],
        expect![[r#"
            Set("10.0.0.1/32", 80, "cali1")
            Link("cali1", 7)
              add 10.0.0.1/32 dev #7 proto 80 metric 0
            LinkGone(7)
            Link("cali1", 9)
              add 10.0.0.1/32 dev #9 proto 80 metric 0
        "#]],
    );
}

#[test]
fn of_two_protocols_the_local_one_wins_and_the_other_takes_over_when_it_goes() {
    use Step::*;
    check(
        &[
            Link("eth0", 2),
            Set("10.0.0.0/26", 186, "eth0"),
            Set("10.0.0.0/26", 80, "eth0"),
            Unset("10.0.0.0/26", 80),
        ],
        expect![[r#"
            Link("eth0", 2)
            Set("10.0.0.0/26", 186, "eth0")
              add 10.0.0.0/26 dev #2 proto 186 metric 0
            Set("10.0.0.0/26", 80, "eth0")
              replace 10.0.0.0/26 dev #2 proto 80 metric 0
            Unset("10.0.0.0/26", 80)
              replace 10.0.0.0/26 dev #2 proto 186 metric 0
        "#]],
    );
}

/// A kernel in memory that enforces what the real one does: one route per key, exclusive additions.
#[derive(Debug, Default)]
struct FakeKernel(BTreeMap<Key, Route>);

impl FakeKernel {
    /// What `RouteTable::apply` does.
    fn apply(&mut self, tracker: &mut Tracker) {
        if self.pass(tracker) {
            tracker.load(self.ours());
            tracker.retry_failed();
            self.pass(tracker);
        }
    }

    fn pass(&mut self, tracker: &mut Tracker) -> bool {
        let actions = tracker.plan(|_| None);
        actions.into_iter().filter(|action| !self.execute(action.clone(), tracker)).count() > 0
    }

    fn execute(&mut self, action: Action, tracker: &mut Tracker) -> bool {
        match action {
            Action::Add(route) if self.0.contains_key(&Key::of(&route)) => {
                tracker.failed(&route);
                return false;
            }
            Action::Replace(route) if self.foreign(Key::of(&route)) => {
                panic!("replaced a foreign route with {route}")
            }
            Action::Add(route) | Action::Replace(route) => {
                self.0.insert(Key::of(&route), route.clone());
                tracker.written(route);
            }
            Action::Delete(route) => {
                assert!(!self.foreign(Key::of(&route)), "deleted a foreign route for {route}");
                self.0.remove(&Key::of(&route));
                tracker.lost(&route);
            }
        }
        true
    }

    fn foreign(&self, key: Key) -> bool {
        self.0.get(&key).is_some_and(|route| route.protocol == PROTOCOL_STATIC)
    }

    fn ours(&self) -> Vec<Route> {
        self.0.values().filter(|route| route.protocol != PROTOCOL_STATIC).cloned().collect()
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Set(u8, u8, u32),
    Unset(u8, u8),
    SilentLoss(u8),
    ToldLoss(u8),
    Foreign(u8),
    ForeignGone(u8),
    Apply,
}

fn deed() -> impl Strategy<Value = Deed> {
    let protocol = prop_oneof![Just(PROTOCOL_WORKLOAD), Just(PROTOCOL_BGP)];
    prop_oneof![
        4 => (0..6_u8, protocol.clone(), 1..4_u32).prop_map(|(at, by, link)| Deed::Set(at, by, link)),
        2 => (0..6_u8, protocol).prop_map(|(at, by)| Deed::Unset(at, by)),
        1 => (0..6_u8).prop_map(Deed::SilentLoss),
        1 => (0..6_u8).prop_map(Deed::ToldLoss),
        1 => (0..6_u8).prop_map(Deed::Foreign),
        1 => (0..6_u8).prop_map(Deed::ForeignGone),
        3 => Just(Deed::Apply),
    ]
}

fn prefix(at: u8) -> String {
    format!("10.0.{at}.0/24")
}

proptest! {
    /// Whatever happened in whatever order, a resynchronisation ends where starting from scratch would.
    #[test]
    fn any_history_ends_in_the_desired_state(deeds in prop::collection::vec(deed(), 0..60)) {
        let mut tracker = Tracker::new([PROTOCOL_WORKLOAD, PROTOCOL_BGP].into());
        tracker.allow_sweep(PROTOCOL_WORKLOAD);
        tracker.allow_sweep(PROTOCOL_BGP);
        let mut kernel = FakeKernel::default();
        let mut desired: BTreeMap<Key, BTreeMap<u8, Route>> = BTreeMap::new();
        for deed in deeds {
            match deed {
                Deed::Set(at, by, link) => {
                    let route = device(&prefix(at), by, link);
                    desired.entry(Key::of(&route)).or_default().insert(by, route.clone());
                    tracker.set(route);
                }
                Deed::Unset(at, by) => {
                    let key = Key::of(&device(&prefix(at), by, 1));
                    desired.entry(key).or_default().remove(&by);
                    tracker.unset(net(&prefix(at)), by);
                }
                Deed::SilentLoss(at) => { kernel.0.remove(&Key::of(&device(&prefix(at), 0, 1))); }
                Deed::ToldLoss(at) => {
                    if let Some(route) = kernel.0.remove(&Key::of(&device(&prefix(at), 0, 1))) {
                        tracker.lost(&route);
                    }
                }
                Deed::Foreign(at) => {
                    let route = device(&prefix(at), PROTOCOL_STATIC, 9);
                    kernel.0.entry(Key::of(&route)).or_insert(route);
                }
                Deed::ForeignGone(at) => {
                    let key = Key::of(&device(&prefix(at), 0, 1));
                    if kernel.foreign(key) {
                        kernel.0.remove(&key);
                    }
                }
                Deed::Apply => {
                    // What the driver does when told of an overrun; foreign replacement of a known route is told.
                    tracker.load(kernel.ours());
                    kernel.apply(&mut tracker);
                }
            }
        }
        tracker.load(kernel.ours());
        tracker.retry_failed();
        kernel.apply(&mut tracker);
        for at in 0..6 {
            let key = Key::of(&device(&prefix(at), 0, 1));
            if kernel.foreign(key) {
                continue;
            }
            let wanted = desired.get(&key).and_then(|wanted| wanted.values().next());
            prop_assert_eq!(kernel.0.get(&key), wanted);
        }
        prop_assert!(!tracker.is_dirty());
    }
}
