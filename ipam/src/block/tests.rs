use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::AllocationAttribute;
use proptest::prelude::*;

use super::*;
use crate::{Owner, UnixNanos};

const NOW: Cooldown = Cooldown { now: UnixNanos(9), rest: Duration::ZERO };

fn owner(handle: &str) -> AllocationAttribute {
    Owner::pod("node-1", "ns", handle).attribute(handle, UnixNanos(1_790_000_000_000_000_000))
}

#[test]
fn a_block_is_written_as_calico_writes_it() {
    let mut block = empty(
        &"10.244.0.64/30".parse().unwrap(),
        Some("host:node-1"),
        UnixNanos(1_790_000_000_000_000_123),
    );
    take_any(&mut block.spec, &owner("a"), |_| false).unwrap();
    take(&mut block.spec, "10.244.0.67".parse().unwrap(), &owner("b")).unwrap();
    block.spec.sequence_number += 1;
    expect_test::expect![[r#"
        {
          "apiVersion": "projectcalico.org/v3",
          "kind": "IPAMBlock",
          "metadata": {
            "name": "10-244-0-64-30"
          },
          "spec": {
            "cidr": "10.244.0.64/30",
            "affinity": "host:node-1",
            "affinityClaimTime": "2026-09-21T14:13:20Z",
            "allocations": [
              0,
              null,
              null,
              1
            ],
            "unallocated": [
              1,
              2
            ],
            "attributes": [
              {
                "handle_id": "a",
                "secondary": {
                  "namespace": "ns",
                  "node": "node-1",
                  "pod": "a",
                  "timestamp": "2026-09-21 14:13:20 +0000 UTC"
                }
              },
              {
                "handle_id": "b",
                "secondary": {
                  "namespace": "ns",
                  "node": "node-1",
                  "pod": "b",
                  "timestamp": "2026-09-21 14:13:20 +0000 UTC"
                }
              }
            ],
            "sequenceNumber": 1790000000000000124,
            "sequenceNumberForAllocation": {
              "0": 1790000000000000123,
              "3": 1790000000000000123
            },
            "deleted": false,
            "strictAffinity": false
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&block).unwrap());
}

#[test]
fn an_affinity_and_a_handle_are_written_as_calico_writes_them() {
    let net = "10.244.0.64/26".parse().unwrap();
    let affinity = crate::affinity::pending("node-1", &net);
    let handle = crate::handle::new("k8s-pod-network.ABC", &net, 1);
    let text = format!(
        "{}\n{}\n",
        serde_json::to_string(&affinity).unwrap(),
        serde_json::to_string(&handle).unwrap()
    );
    expect_test::expect![[r#"
        {"apiVersion":"projectcalico.org/v3","kind":"BlockAffinity","metadata":{"name":"node-1-10-244-0-64-26","labels":{"projectcalico.org/affinity-type":"host","projectcalico.org/hostname-hash":"A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA","projectcalico.org/ip-version":"4"}},"spec":{"cidr":"10.244.0.64/26","node":"node-1","type":"host","state":"pending","deleted":false}}
        {"apiVersion":"projectcalico.org/v3","kind":"IPAMHandle","metadata":{"name":"k8s-pod-network.abc"},"spec":{"handleID":"k8s-pod-network.ABC","block":{"10.244.0.64/26":1},"deleted":false}}
    "#]]
    .assert_eq(&text);
}

/// Every size that a block may have.
fn sizes() -> impl Iterator<Item = IpNet> {
    let v4 = (20..=32).map(|prefix| format!("10.0.0.0/{prefix}"));
    let v6 = (116..=128).map(|prefix| format!("fd00:0:0:1::/{prefix}"));
    v4.chain(v6).map(|text| text.parse().unwrap())
}

#[test]
fn a_block_of_any_size_gives_every_address_once_and_the_oldest_release_first() {
    for net in sizes() {
        let mut block = empty(&net, None, UnixNanos(5));
        let mut given = Vec::new();
        while let Some(address) = take_any(&mut block.spec, &owner("a"), |_| false) {
            given.push(address);
        }
        assert_eq!(given, net.hosts_all(), "in order");
        assert!(take(&mut block.spec, given[0], &owner("b")).is_err());
        let last = *given.last().unwrap();
        for address in [last, given[0]] {
            release(&mut block.spec, NOW, |one, _| one == address);
        }
        let again = take_any(&mut block.spec, &owner("a"), |_| false);
        assert_eq!(again, Some(last), "first released, first given");
        assert_eq!(defects(&block.spec), [""; 0]);
    }
}

#[test]
fn an_address_rests_before_somebody_else_gets_it() {
    let mut block = empty(&"10.0.0.0/31".parse().unwrap(), None, UnixNanos(5));
    let start = 1_790_000_000_000_000_000;
    let at = |seconds: u64| Cooldown {
        now: UnixNanos(start + seconds * 1_000_000_000),
        rest: Duration::from_secs(30),
    };
    let first = take_any(&mut block.spec, &owner("a"), |_| false).unwrap();
    assert_eq!(release(&mut block.spec, at(0), |_, _| true).len(), 1);
    assert_eq!(release(&mut block.spec, at(1), |_, _| true).len(), 0, "it is released already");
    assert!(!is_empty(&block.spec), "a cooling address is in use");
    expect_test::expect![[r#"
        {"cidr":"10.0.0.0/31","allocations":[0,null],"unallocated":[1],"attributes":[{"releasedAt":"2026-09-21T14:13:20Z"}],"sequenceNumber":5,"sequenceNumberForAllocation":{"0":5},"deleted":false,"strictAffinity":false}"#]]
    .assert_eq(&serde_json::to_string(&block.spec).unwrap());
    assert!(take_any(&mut block.spec, &owner("b"), |_| false).unwrap() != first);
    assert_eq!(take_any(&mut block.spec, &owner("c"), |_| false), None);
    assert!(!thaw(&mut block.spec, at(29)));
    assert!(thaw(&mut block.spec, at(30)));
    assert_eq!(take_any(&mut block.spec, &owner("c"), |_| false), Some(first));
    assert_eq!(defects(&block.spec), [""; 0]);
}

trait HostsAll {
    fn hosts_all(&self) -> Vec<IpAddr>;
}

impl HostsAll for IpNet {
    fn hosts_all(&self) -> Vec<IpAddr> {
        (0..ordinal::size(self).unwrap()).map(|at| ordinal::address(self, at).unwrap()).collect()
    }
}

#[test]
fn defects_are_named() {
    let mut block = empty(&"10.0.0.0/30".parse().unwrap(), None, UnixNanos(5));
    take_any(&mut block.spec, &owner("a"), |_| false).unwrap();
    block.spec.unallocated = vec![0, 0, 9, 2];
    block.spec.attributes.clear();
    expect_test::expect![[r#"
        [
            "ordinal 0 is unallocated twice",
            "unallocated ordinal 9 is beyond the end",
            "ordinal 0 is both allocated and unallocated",
            "ordinal 1 is neither allocated nor unallocated",
            "ordinal 3 is neither allocated nor unallocated",
        ]
    "#]]
    .assert_debug_eq(&defects(&block.spec));
}

proptest! {
    #[test]
    fn any_history_leaves_a_valid_block(
        v6 in any::<bool>(),
        bits in 0..=12_u8,
        steps in prop::collection::vec((0..6_u8, any::<u32>(), 0..4_u8), 0..60),
    ) {
        let net: IpNet = if v6 { format!("fd00::/{}", 128 - bits) } else { format!("10.0.0.0/{}", 32 - bits) }
            .parse()
            .unwrap();
        let mut block = empty(&net, Some("host:n"), UnixNanos(7));
        let (mut model, mut cooling) = (BTreeMap::new(), BTreeSet::new());
        let mut now = UnixNanos(1_790_000_000_000_000_000);
        for (what, at, who) in steps {
            now.0 += 1_000_000_000;
            let cooldown = Cooldown { now, rest: Duration::from_secs(if what == 2 { 5 } else { 0 }) };
            let address = ordinal::address(&net, at % ordinal::size(&net).unwrap()).unwrap();
            let who = who.to_string();
            match what {
                0 | 3 => if let Some(got) = take_any(&mut block.spec, &owner(&who), |one| one == address) {
                    prop_assert!(got != address && !cooling.contains(&got));
                    prop_assert!(model.insert(got, who).is_none());
                },
                1 => {
                    let free = !model.contains_key(&address) && !cooling.contains(&address);
                    prop_assert_eq!(take(&mut block.spec, address, &owner(&who)).is_ok(), free);
                    if free {
                        model.insert(address, who);
                    }
                }
                5 => {
                    thaw(&mut block.spec, cooldown);
                    cooling.clear();
                }
                _ => {
                    let freed = release(&mut block.spec, cooldown, |_, one| one.handle_id.as_deref() == Some(&who));
                    let before = model.len();
                    model.retain(|address, one| {
                        if *one == who && what == 2 {
                            cooling.insert(*address);
                        }
                        *one != who
                    });
                    prop_assert_eq!(freed.len(), before - model.len());
                }
            }
            prop_assert_eq!(defects(&block.spec), Vec::<String>::new());
            let living = assigned(&block.spec).filter(|(_, one)| one.released_at.is_none());
            let seen: BTreeMap<_, _> = living
                .map(|(address, one)| (address, one.handle_id.clone().unwrap_or_default())).collect();
            prop_assert_eq!(&seen, &model);
        }
    }
}
