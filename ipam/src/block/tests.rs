use std::net::IpAddr;

use api::AllocationAttribute;
use proptest::prelude::*;

use super::*;
use crate::{Owner, UnixNanos};

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

#[test]
fn a_small_block_gives_every_address_once_and_the_oldest_release_first() {
    for prefix in 26..=32 {
        let net: IpNet = format!("10.0.0.0/{prefix}").parse().unwrap();
        let mut block = empty(&net, None, UnixNanos(5));
        let mut given = Vec::new();
        while let Some(address) = take_any(&mut block.spec, &owner("a"), |_| false) {
            given.push(address);
        }
        assert_eq!(given, net.hosts_all(), "in order");
        for address in given.iter().rev() {
            assert_eq!(release(&mut block.spec, |one, _| one == *address).len(), 1);
        }
        let again = take_any(&mut block.spec, &owner("a"), |_| false);
        assert_eq!(again, given.last().copied(), "first released, first given");
        assert_eq!(defects(&block.spec), [""; 0]);
    }
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
    fn any_history_leaves_a_valid_block(steps in prop::collection::vec((0..3_u8, 0..16_u32, 0..4_u8), 0..80)) {
        let net: IpNet = "10.0.0.0/28".parse().unwrap();
        let mut block = empty(&net, Some("host:n"), UnixNanos(7));
        let mut model = std::collections::BTreeMap::new();
        for (what, at, who) in steps {
            let (address, who) = (ordinal::address(&net, at).unwrap(), who.to_string());
            match what {
                0 => if let Some(got) = take_any(&mut block.spec, &owner(&who), |one| one == address) {
                    prop_assert!(got != address);
                    prop_assert!(model.insert(got, who).is_none());
                },
                1 => {
                    let free = !model.contains_key(&address);
                    prop_assert_eq!(take(&mut block.spec, address, &owner(&who)).is_ok(), free);
                    model.entry(address).or_insert(who);
                }
                _ => {
                    let freed = release(&mut block.spec, |_, one| one.handle_id.as_deref() == Some(&who));
                    let before = model.len();
                    model.retain(|_, one| *one != who);
                    prop_assert_eq!(freed.len(), before - model.len());
                }
            }
            prop_assert_eq!(defects(&block.spec), Vec::<String>::new());
            let seen: std::collections::BTreeMap<_, _> = assigned(&block.spec)
                .map(|(address, one)| (address, one.handle_id.clone().unwrap_or_default())).collect();
            prop_assert_eq!(&seen, &model);
        }
    }
}
