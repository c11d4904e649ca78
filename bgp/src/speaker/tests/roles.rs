//! Roles (RFC 9234).

use super::lab::{Lab, mesh_configs};
use crate::{Asn, Role, State};

fn pair(left: Option<Role>, right: Option<Role>, strict: bool) -> Lab {
    Lab::pair_with(1, 2, |peer| {
        let is_right = peer.name == "r0";
        peer.role = if is_right { right } else { left };
        peer.role_strict = strict && !is_right;
    })
}

#[test]
fn only_fitting_roles_make_a_session() {
    use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    for (left, right, strict, cause) in [
        (Some(Provider), Some(Customer), true, ""),
        (Some(RouteServer), Some(RouteServerClient), false, ""),
        (Some(Peer), Some(Peer), true, ""),
        (Some(Peer), None, false, ""),
        (None, Some(Provider), false, ""),
        (
            Some(Provider),
            Some(Provider),
            false,
            "peer says it is provider, but must be customer to us as provider (sent 2/11 role mismatch)",
        ),
        (
            Some(Peer),
            None,
            true,
            "peer announces no role, but must be peer (sent 2/11 role mismatch)",
        ),
    ] {
        let mut lab = pair(left, right, strict);
        lab.run(3);
        let up = lab.state(0, 1) == State::Established;
        assert_eq!(up, cause.is_empty(), "{left:?} {right:?}");
        let told = lab.peer(0, 1).history.iter().any(|each| each.cause == cause);
        assert_eq!(told, !up, "{:?}", lab.peer(0, 1).history);
    }
}

#[test]
fn roles_do_not_matter_within_a_system() {
    let mut lab = Lab::pair_with(1, 1, |peer| peer.role = Some(Role::Provider));
    lab.run(3);
    assert_eq!(lab.state(0, 1), State::Established);
}

/// r0 is the provider of r1, r1 peers with r2: the provider's routes stay with r1, those of r1 and its customer r3 go on.
#[test]
fn routes_of_a_provider_go_to_customers_only() {
    let mut configs = mesh_configs(&[1, 2, 3, 4], &[(0, 1), (1, 2), (1, 3)]);
    configs[0].peers[0].role = Some(Role::Provider);
    configs[1].peers[0].role = Some(Role::Customer);
    configs[1].peers[1].role = Some(Role::Peer);
    configs[1].peers[2].role = Some(Role::Provider);
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.0.0.0/16");
    lab.originate(1, "10.1.0.0/16");
    lab.originate(3, "10.3.0.0/16");
    lab.run(5);
    let has = |lab: &Lab, index: usize| {
        lab.fibs[index].keys().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(has(&lab, 2), "10.1.0.0/16 10.3.0.0/16");
    assert_eq!(has(&lab, 3), "10.0.0.0/16 10.1.0.0/16");
    assert_eq!(has(&lab, 0), "10.1.0.0/16 10.3.0.0/16");
    // The provider marked it; r3, its customer's customer, is told by whom.
    let rib = lab.speaker(3).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.only_to_customer(), Some(Asn(1)));
    let rib = lab.speaker(2).snapshot(true).rib;
    assert_eq!(rib[0].paths[0].attributes.only_to_customer(), Some(Asn(2)));
}

/// r1 forgets its roles and passes the provider's routes on to r2, its other provider.
#[test]
fn a_leak_is_refused_by_the_receiver() {
    let mut configs = mesh_configs(&[1, 2, 3], &[(0, 1), (1, 2)]);
    configs[0].peers[0].role = Some(Role::Provider);
    configs[2].peers[0].role = Some(Role::Provider);
    let mut lab = Lab::new(configs);
    lab.originate(0, "10.0.0.0/16");
    lab.originate(1, "10.1.0.0/16");
    lab.run(5);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    assert_eq!(lab.peer(2, 1).prefixes_received, 2);
}
