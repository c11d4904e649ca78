//! KubeVirt machines keep their addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{IpamBlock, IpamHandle, Key, Toggle, VirtualMachine, VirtualMachineSpec};
use store::Store;
use store::memory::{Faults, MemoryStore};

use super::{Allocator, all, allocator, cluster, configure, findings};
use crate::{AssignRequest, Machine, MachinePod, Owner, collector};

const HANDLE: &str = "net.vmi.ns.vm";

fn pod(name: &str) -> MachinePod {
    MachinePod { namespace: "ns".to_owned(), name: name.to_owned() }
}

/// What a pod of the machine asks for; `migration` makes it the target of one.
fn ask(node: &str, name: &str, migration: Option<&str>) -> AssignRequest {
    let machine = Machine {
        namespace: "ns".to_owned(),
        name: "vm".to_owned(),
        instance_uid: "i1".to_owned(),
        uid: Some("v1".to_owned()),
        migration_uid: migration.map(str::to_owned),
    };
    AssignRequest {
        handle: machine.handle("net"),
        owner: machine.owner(Owner::pod(node, "ns", name).with("timestamp", "then")),
        machine: Some(machine),
        ..AssignRequest::default()
    }
}

async fn owners(store: &MemoryStore) -> String {
    let blocks = all::<IpamBlock>(store).await;
    let owners = blocks.iter().flat_map(|one| &one.spec.attributes);
    owners.map(|owner| serde_json::to_string(owner).unwrap() + "\n").collect()
}

async fn two_nodes() -> (MemoryStore, Allocator<MemoryStore>, Allocator<MemoryStore>) {
    let store = cluster("10.0.0.0/24", 26, &["n1", "n2"]).await;
    let (one, two) = (allocator(&store, "n1"), allocator(&store, "n2"));
    (store, one, two)
}

/// The machine runs on the first node, with an address of that node's block or, every second time, of the other's.
async fn running(
    seed: u64,
) -> (MemoryStore, Allocator<MemoryStore>, Allocator<MemoryStore>, Vec<IpAddr>) {
    let (store, one, two) = two_nodes().await;
    if seed % 2 == 1 {
        two.assign_for_pod(ask("n2", "first", None)).await.unwrap();
    }
    let addresses = one.assign_for_pod(ask("n1", "a", None)).await.unwrap();
    (store, one, two, addresses)
}

/// Requests take their time, another for each seed.
fn slow(seed: u64) -> Faults {
    Faults { latency: std::time::Duration::from_millis(10), seed, ..Faults::none() }
}

/// Addresses of the machine.
async fn held(store: &MemoryStore) -> Vec<IpAddr> {
    let blocks = all::<IpamBlock>(store).await;
    blocks.iter().flat_map(|one| crate::block::of_handle(&one.spec, HANDLE)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_machine_keeps_its_address_from_pod_to_pod_and_from_node_to_node() {
    let (store, one, two) = two_nodes().await;
    let first = one.assign_for_pod(ask("n1", "a", None)).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(one.assign_for_pod(ask("n1", "a", None)).await.unwrap(), first, "asked again");
    assert!(one.leave_machine(HANDLE, pod("a"), false).await.unwrap().is_empty());
    // Stopped: nobody has it, and it stays.
    assert_eq!(owners(&store).await, "{\"handle_id\":\"net.vmi.ns.vm\"}\n");
    assert_eq!(two.assign_for_pod(ask("n2", "b", None)).await.unwrap(), first);
    // The first pod's DEL comes late, and twice.
    assert!(one.leave_machine(HANDLE, pod("a"), true).await.unwrap().is_empty());
    assert_eq!(one.assign_for_pod(ask("n1", "c", None)).await.unwrap(), first);
    assert_eq!(one.leave_machine(HANDLE, pod("c"), true).await.unwrap(), first);
    assert!(all::<IpamHandle>(&store).await.is_empty());
    assert_eq!(findings(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_migration_has_two_owners_until_the_former_pod_leaves() {
    let (store, one, two) = two_nodes().await;
    let refused = two.assign_for_pod(ask("n2", "b", Some("m1"))).await.unwrap_err();
    assert!(!refused.is_temporary(), "{refused}");
    let first = one.assign_for_pod(ask("n1", "a", None)).await.unwrap();
    assert_eq!(two.assign_for_pod(ask("n2", "b", Some("m1"))).await.unwrap(), first);
    expect_test::expect![[r#"
        {"handle_id":"net.vmi.ns.vm","secondary":{"namespace":"ns","node":"n1","pod":"a","timestamp":"then","vm-uid":"v1","vmi-name":"vm","vmi-uid":"i1"},"alternateOwnerAttrs":{"namespace":"ns","node":"n2","pod":"b","timestamp":"then","vm-uid":"v1","vmi-name":"vm","vmi-uid":"i1","vmim-uid":"m1"}}
    "#]]
    .assert_eq(&owners(&store).await);
    two.machine_moved(HANDLE, pod("b")).await.unwrap();
    two.machine_moved(HANDLE, pod("b")).await.unwrap();
    one.leave_machine(HANDLE, pod("a"), false).await.unwrap();
    expect_test::expect![[r#"
        {"handle_id":"net.vmi.ns.vm","secondary":{"namespace":"ns","node":"n2","pod":"b","timestamp":"then","vm-uid":"v1","vmi-name":"vm","vmi-uid":"i1","vmim-uid":"m1"}}
    "#]]
    .assert_eq(&owners(&store).await);
    // A migration that fails: only the target leaves.
    assert_eq!(one.assign_for_pod(ask("n1", "c", Some("m2"))).await.unwrap(), first);
    one.leave_machine(HANDLE, pod("c"), false).await.unwrap();
    assert!(!owners(&store).await.contains("alternate"));
    assert_eq!(two.leave_machine(HANDLE, pod("b"), true).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn two_pods_of_a_machine_at_once_get_one_address() {
    for seed in 0..50 {
        let (store, one, two) = two_nodes().await;
        for ipam in [&one, &two] {
            ipam.ensure_block(crate::Family::V4).await.unwrap();
        }
        let latency = std::time::Duration::from_millis(10);
        store.set_faults(Faults { latency, ..Faults::everything(seed, 50) });
        let (first, second) = tokio::join!(
            one.assign_for_pod(ask("n1", "a", None)),
            two.assign_for_pod(ask("n2", "b", None))
        );
        store.set_faults(Faults::none());
        let got: BTreeSet<IpAddr> = [first, second].into_iter().flatten().flatten().collect();
        assert!(got.len() <= 1, "seed {seed}: {got:?}");
        assert!(held(&store).await.len() <= 1, "seed {seed}");
        let again = one.assign_for_pod(ask("n1", "a", None)).await.unwrap();
        assert!(got.is_empty() || got == again.iter().copied().collect(), "seed {seed}");
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}");
    }
}

/// The handle of a machine says what there is: a crash left a block without an address in it.
#[tokio::test(start_paused = true)]
async fn two_pods_of_a_machine_that_died_starting_get_one_address() {
    for seed in 0..200 {
        let (store, one, two) = two_nodes().await;
        let block = one.ensure_block(crate::Family::V4).await.unwrap();
        two.ensure_block(crate::Family::V4).await.unwrap();
        store.create(&crate::handle::new(HANDLE, &block, 1)).await.unwrap();
        store.set_faults(slow(seed));
        let (first, second) = tokio::join!(
            one.assign_for_pod(ask("n1", "a", None)),
            two.assign_for_pod(ask("n2", "b", None))
        );
        store.set_faults(Faults::none());
        assert_eq!(first.unwrap(), second.unwrap(), "seed {seed}");
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_ends_and_starts_again_at_once_has_an_address() {
    let mut kept = 0;
    for seed in 0..600 {
        let (store, one, two, before) = running(seed).await;
        store.set_faults(slow(seed));
        let (left, got) = tokio::join!(
            one.leave_machine(HANDLE, pod("a"), true),
            two.assign_for_pod(ask("n2", "b", None))
        );
        store.set_faults(Faults::none());
        let (left, got) = (left.unwrap(), got.unwrap());
        kept += u32::from(got == before);
        assert_eq!(got.len(), 1, "seed {seed}");
        assert!(left.is_empty() || left == before, "seed {seed}");
        assert_eq!(held(&store).await, got, "seed {seed}");
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}");
    }
    assert!(0 < kept && kept < 600, "{kept}: at times the address stays, at times it goes");
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_of_a_machine_is_mended_by_its_next_pod() {
    let (store, one, two) = two_nodes().await;
    let block = one.ensure_block(crate::Family::V4).await.unwrap();
    store.create(&crate::handle::new(HANDLE, &block, 1)).await.unwrap();
    let got = two.assign_for_pod(ask("n2", "b", None)).await.unwrap();
    assert!(!block.contains(&got[0]));
    assert_eq!(findings(&store).await, [""; 0]);
}

fn at(hour: u64) -> crate::Clock {
    crate::Clock::new(move || {
        crate::UnixNanos(1_800_000_000_000_000_000 + hour * 3_600_000_000_000)
    })
}

/// What the collector sees, and what it plans.
async fn look(
    store: &MemoryStore,
    seen: &collector::Observations,
    hour: u64,
) -> (collector::Observations, collector::ReleasePlan) {
    let machines = collector::machines(store).await.unwrap();
    let blocks = all::<IpamBlock>(store).await;
    let (handles, nodes) = (all(store).await, all(store).await);
    let affinities = all(store).await;
    let inventory = collector::Inventory {
        blocks: blocks.iter().collect(),
        affinities: affinities.iter().collect(),
        handles: handles.iter().collect(),
        nodes: nodes.iter().collect(),
        machines: machines.as_ref(),
        ..Default::default()
    };
    collector::plan(&inventory, seen, at(hour).now(), &collector::Rules::default())
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_pod_takes_over_is_not_collected() {
    let mut kept = 0;
    for seed in 0..200 {
        let (store, one, two, before) = running(seed).await;
        one.leave_machine(HANDLE, pod("a"), false).await.unwrap();
        // There is no machine any more; and then there is one of that name.
        let (seen, _) = look(&store, &collector::Observations::default(), 0).await;
        let (_, plan) = look(&store, &seen, 1).await;
        assert!(!plan.handles.is_empty());
        store.set_faults(slow(seed));
        let clock = at(1);
        let (applied, got) = tokio::join!(
            collector::apply(&store, &plan, &clock),
            two.assign_for_pod(ask("n2", "b", None))
        );
        store.set_faults(Faults::none());
        let got = got.unwrap();
        assert!(applied.errors.is_empty(), "seed {seed}: {:?}", applied.errors);
        kept += u32::from(got == before);
        assert_eq!(held(&store).await, got, "seed {seed}");
        assert_eq!(findings(&store).await, [""; 0], "seed {seed}");
    }
    assert!(0 < kept && kept < 200, "{kept}: at times the address stays, at times it goes");
}

#[tokio::test(start_paused = true)]
async fn an_address_waits_for_its_stopped_machine_and_goes_with_it() {
    let (store, one, _) = two_nodes().await;
    let machine = VirtualMachine::in_namespace("ns", "vm", VirtualMachineSpec::default());
    store.create(&machine).await.unwrap();
    let first = one.assign_for_pod(ask("n1", "a", None)).await.unwrap();
    one.leave_machine(HANDLE, pod("a"), false).await.unwrap();
    let mut seen = collector::Observations::default();
    let mut released = Vec::new();
    for hour in 0..4_u64 {
        if hour == 2 {
            let key = Key::namespaced("ns", "vm");
            store.delete::<VirtualMachine>(&key, &Default::default()).await.unwrap();
        }
        let plan;
        (seen, plan) = look(&store, &seen, hour).await;
        let applied = collector::apply(&store, &plan, &at(hour)).await;
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        released.push(applied.addresses);
    }
    assert_eq!(released, [vec![], vec![], vec![], first]);
}

#[tokio::test(start_paused = true)]
async fn machines_lose_their_addresses_where_that_is_wanted() {
    let (store, one, _) = two_nodes().await;
    assert!(one.keeps_machine_addresses().await.unwrap());
    configure(&store, |spec| spec.kube_virt_vm_address_persistence = Some(Toggle::Disabled)).await;
    assert!(!one.keeps_machine_addresses().await.unwrap());
}
