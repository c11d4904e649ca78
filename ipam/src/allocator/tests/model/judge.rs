//! What must hold: at every moment, and when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use api::{BlockAffinity, IpPool, IpamBlock, IpamHandle, Node, Pod, PodSpec, Resource};
use ipnet::IpNet;
use serde_json::Value;
use store::memory::MemoryStore;
use store::{DeletePreconditions, ListOptions, Store};

use super::super::{Allocator, Options, all, findings};
use super::life::{Constants, Facts, MINUTE, START, handles, look, request};
use super::scenarios::{Op, Scenario};
use super::world::{Answer, Ask, Dictionary, Kind, ObjectId, World};
use crate::{Clock, UnixNanos, affinity, block, collector, ordinal, reconcile};

type Held = BTreeMap<&'static str, Vec<IpAddr>>;

/// Everything is over, and some days have passed.
const LATER: u64 = START + 30 * 24 * 60 * MINUTE;

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Prepares a cluster, and takes in what is stored then: what changes, and what does not. Also returns what nodes hold.
pub(super) fn prepare(scenario: &Scenario) -> (Dictionary, World, Constants, Vec<Held>) {
    paused().block_on(async {
        let store = MemoryStore::new();
        let mut held = vec![Held::new(); scenario.programs.len()];
        constants(scenario, &store).await;
        for (node, op) in scenario.before {
            let clock = Clock::new(|| UnixNanos(START - 10 * MINUTE));
            let options = Options { clock, ..Options::default() };
            let ipam = Allocator::with_options(store.clone(), *node, options);
            match op {
                Op::Assign(handle) | Op::AssignBoth(handle) => {
                    let both = matches!(op, Op::AssignBoth(_));
                    let got = ipam.auto_assign(request(node, handle, both)).await.unwrap();
                    let seat = scenario.programs.iter().position(|(name, _)| name == node);
                    if let Some(seat) = seat.filter(|_| !scenario.gone.contains(handle)) {
                        held[seat].insert(handle, got.iter().map(IpNet::addr).collect());
                    }
                }
                Op::Release(handle) => drop(ipam.release_by_handle(handle).await.unwrap()),
                Op::Claim(net) => drop(ipam.claim_block(net.parse().unwrap()).await.unwrap()),
                other => panic!("{other:?} is not a preparation"),
            }
        }
        let (mut dictionary, mut world) = (Dictionary::default(), World::default());
        let mut fixed = Constants::new();
        take_in::<IpamBlock>(&store, &mut dictionary, &mut world).await;
        take_in::<BlockAffinity>(&store, &mut dictionary, &mut world).await;
        take_in::<IpamHandle>(&store, &mut dictionary, &mut world).await;
        if scenario.joins() {
            take_in::<Node>(&store, &mut dictionary, &mut world).await;
        }
        keep::<Node>(&store, &mut fixed).await;
        keep::<IpPool>(&store, &mut fixed).await;
        keep::<Pod>(&store, &mut fixed).await;
        (dictionary, world, fixed, held)
    })
}

/// Pools, nodes and pods.
async fn constants(scenario: &Scenario, store: &MemoryStore) {
    for (number, (cidr, size)) in scenario.pools.iter().enumerate() {
        let spec = api::IpPoolSpec {
            cidr: (*cidr).to_owned(),
            block_size: Some(*size),
            ..api::IpPoolSpec::default()
        };
        store.create(&IpPool::new(format!("pool-{number}"), spec)).await.unwrap();
    }
    for node in ["n1", "n2", "n3", "n4"].iter().filter(|node| !scenario.dead.contains(node)) {
        store.create(&Node::new(*node, api::NodeSpec::default())).await.unwrap();
    }
    for handle in handles(scenario).iter().filter(|handle| !scenario.gone.contains(handle)) {
        let mut pod = Pod::new(*handle, PodSpec::default());
        pod.metadata.namespace = Some("ns".to_owned());
        store.create(&pod).await.unwrap();
    }
}

async fn take_in<R: Resource>(store: &MemoryStore, dictionary: &mut Dictionary, world: &mut World) {
    for stored in store.list::<R>(&ListOptions::consistent()).await.unwrap().items {
        let key = dictionary.key(Kind::of(R::KIND.kind).unwrap(), &stored.key().name);
        let object = dictionary.object(stored.raw());
        let answer = world.serve(&Ask::Create(key, object), dictionary);
        assert!(matches!(answer, Answer::Object(..)));
    }
}

async fn keep<R: Resource>(store: &MemoryStore, fixed: &mut Constants) {
    for stored in store.list::<R>(&ListOptions::consistent()).await.unwrap().items {
        let named = (R::KIND.kind, stored.key().name);
        fixed.insert(named, Arc::new(stored.raw().clone()));
    }
}

/// What matters of a block.
struct Leaf {
    net: IpNet,
    defects: Vec<String>,
    owners: Vec<(IpAddr, String)>,
}

pub(super) struct Judge<'s> {
    scenario: &'s Scenario,
    constants: Constants,
    blocks: HashMap<ObjectId, Leaf>,
    claims: HashMap<ObjectId, Option<IpNet>>,
    recovered: HashSet<u64>,
}

impl<'s> Judge<'s> {
    pub(super) fn new(scenario: &'s Scenario, constants: Constants) -> Self {
        Self {
            scenario,
            constants,
            blocks: HashMap::new(),
            claims: HashMap::new(),
            recovered: HashSet::new(),
        }
    }

    pub(super) fn recoveries(&self) -> usize {
        self.recovered.len()
    }

    /// At every moment no address belongs to two, no two confirmed blocks overlap, and who was answered has its address.
    pub(super) fn nothing_twice(
        &mut self,
        world: &World,
        facts: &[&Facts],
        dictionary: &Dictionary,
    ) -> Result<(), String> {
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        let mut confirmed: Vec<IpNet> = Vec::new();
        for (key, object, _) in world.objects() {
            match dictionary.name(key).0 {
                Kind::Block => {
                    self.blocks.entry(object).or_insert_with(|| leaf(dictionary, object));
                }
                Kind::Affinity => {
                    let claim = self.claims.entry(object).or_insert_with(|| {
                        let claim: BlockAffinity = parse(dictionary, object);
                        let counts = affinity::is_confirmed(&claim.spec);
                        counts.then(|| claim.spec.cidr.parse().unwrap())
                    });
                    confirmed.extend(*claim);
                }
                _ => {}
            }
        }
        for (key, object, _) in world.objects() {
            if dictionary.name(key).0 != Kind::Block {
                continue;
            }
            let leaf = &self.blocks[&object];
            if let Some(defect) = leaf.defects.first() {
                return Err(format!("block {}: {defect}", leaf.net));
            }
            for (address, owner) in &leaf.owners {
                if let Some(other) = owners.insert(*address, owner) {
                    return Err(format!("{address} is {owner}'s and {other}'s"));
                }
            }
        }
        for (handle, addresses) in facts.iter().flat_map(|facts| &facts.held) {
            for address in addresses {
                if owners.get(address) != Some(handle) {
                    return Err(format!(
                        "{address} was given to {handle}, and is {:?}'s",
                        owners.get(address)
                    ));
                }
            }
        }
        for (at, one) in confirmed.iter().enumerate() {
            if let Some(other) = confirmed[..at].iter().find(|other| ordinal::overlap(one, other)) {
                return Err(format!("blocks {one} and {other} are both confirmed"));
            }
        }
        Ok(())
    }

    /// Everybody dies and starts again, the runtime deletes what it is not sure of, nodes and the collector repair: then everybody has what
    /// it was given, and nobody anything else; and when everybody has given back what it has, nothing is left.
    pub(super) fn recovers(
        &mut self,
        world: &World,
        facts: &[&Facts],
        dictionary: &Dictionary,
    ) -> Result<(), String> {
        let mut hasher = DefaultHasher::new();
        for (key, object, _) in world.objects() {
            (key, object).hash(&mut hasher);
        }
        for facts in facts {
            (&facts.held, facts.unsure).hash(&mut hasher);
        }
        if !self.recovered.insert(hasher.finish()) {
            return Ok(());
        }
        let mut objects: Vec<(Kind, Arc<Value>)> = Vec::new();
        for (key, object, _) in world.objects() {
            objects.push((dictionary.name(key).0, Arc::clone(dictionary.content(object))));
        }
        paused().block_on(recover(self.scenario, &self.constants, objects, facts))
    }
}

fn parse<R: Resource>(dictionary: &Dictionary, object: ObjectId) -> R {
    R::deserialize(&**dictionary.content(object)).unwrap()
}

fn leaf(dictionary: &Dictionary, object: ObjectId) -> Leaf {
    let one: IpamBlock = parse(dictionary, object);
    let owners = block::assigned(&one.spec);
    let owners =
        owners.map(|(address, owner)| (address, owner.handle_id.clone().unwrap_or_default()));
    Leaf {
        net: block::cidr(&one.spec).unwrap(),
        defects: block::defects(&one.spec),
        owners: owners.collect(),
    }
}

async fn put<R: Resource>(store: &MemoryStore, object: &Value) {
    store.create(&R::deserialize(object).unwrap()).await.unwrap();
}

async fn recover(
    scenario: &Scenario,
    constants: &Constants,
    objects: Vec<(Kind, Arc<Value>)>,
    facts: &[&Facts],
) -> Result<(), String> {
    let store = store_again(scenario, constants, &objects).await;
    for (handle, addresses) in facts.iter().flat_map(|facts| &facts.held) {
        store.create(&pod_with(handle, addresses)).await.unwrap();
    }
    let living = facts.iter().flat_map(|facts| facts.held.keys());
    let living: BTreeSet<String> = living.map(ToString::to_string).collect();
    for (seat, facts) in facts.iter().enumerate() {
        if !scenario.is_of_controller(seat) {
            restart(&store, scenario.programs[seat].0, facts, &living).await?;
        }
    }
    tidy(&store, LATER).await?;
    let stored: BTreeSet<(IpAddr, String)> = assigned(&store).await;
    let given = facts.iter().flat_map(|facts| &facts.held);
    let given: BTreeSet<(IpAddr, String)> = given
        .flat_map(|(handle, addresses)| addresses.iter().map(|one| (*one, (*handle).to_owned())))
        .collect();
    if stored != given {
        return Err(format!("in the end {given:?} is given and {stored:?} is stored"));
    }
    // The claim of a node that is gone stays while somebody has an address of its block, confirmed or not, and the check says so.
    let found = findings(&store).await;
    let is_kept = |finding: &String| {
        scenario.dead.iter().any(|node| {
            finding.starts_with(&format!("affinity {node}-"))
                || finding
                    .contains(&format!(" says host:{node} and there is no confirmed affinity"))
        })
    };
    if let Some(finding) = found.iter().find(|finding| given.is_empty() || !is_kept(finding)) {
        return Err(format!("in the end {finding}"));
    }
    give_back(&store, scenario, facts).await
}

/// Makes what is stored anew, with its pools and nodes.
async fn store_again(
    scenario: &Scenario,
    constants: &Constants,
    objects: &[(Kind, Arc<Value>)],
) -> MemoryStore {
    let store = MemoryStore::new();
    for (kind, object) in objects {
        match kind {
            Kind::Block => put::<IpamBlock>(&store, object).await,
            Kind::Affinity => put::<BlockAffinity>(&store, object).await,
            Kind::Handle => put::<IpamHandle>(&store, object).await,
            Kind::Node => put::<Node>(&store, object).await,
        }
    }
    for ((kind, _), object) in constants {
        match *kind {
            "IPPool" => put::<IpPool>(&store, object).await,
            "Node" if !scenario.joins() => put::<Node>(&store, object).await,
            _ => {}
        }
    }
    store
}

fn late_allocator(store: &MemoryStore, node: &str) -> Allocator<MemoryStore> {
    let clock = Clock::new(|| UnixNanos(LATER));
    Allocator::with_options(store.clone(), node, Options { clock, ..Options::default() })
}

/// A node starts: the runtime deletes what it is not sure of, and the node releases what no pod here has.
async fn restart(
    store: &MemoryStore,
    node: &str,
    facts: &Facts,
    living: &BTreeSet<String>,
) -> Result<(), String> {
    let ipam = late_allocator(store, node);
    for handle in facts.unsure.iter().copied().chain(["none"]) {
        ipam.release_by_handle(handle).await.map_err(|error| error.to_string())?;
    }
    let own = affinity::of_host(node);
    let mut blocks = all::<IpamBlock>(store).await;
    blocks.retain(|one| one.spec.affinity.as_deref() == Some(&own));
    let (now, grace) = (UnixNanos(LATER), std::time::Duration::ZERO);
    for handle in reconcile::stale_handles(node, &blocks, living, now, grace) {
        ipam.release_by_handle(&handle).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// All pods end: then nothing is left.
async fn give_back(
    store: &MemoryStore,
    scenario: &Scenario,
    facts: &[&Facts],
) -> Result<(), String> {
    for ((node, _), facts) in scenario.programs.iter().zip(facts) {
        let ipam = late_allocator(store, node);
        for handle in facts.held.keys() {
            let key = api::Key::namespaced("ns", *handle);
            store.delete::<Pod>(&key, &DeletePreconditions::default()).await.unwrap();
            ipam.release_by_handle(handle).await.map_err(|error| error.to_string())?;
        }
    }
    tidy(store, LATER + 24 * 60 * MINUTE).await?;
    let left = all::<IpamHandle>(store).await;
    let stored = assigned(store).await;
    let found = findings(store).await;
    if !left.is_empty() || !stored.is_empty() || !found.is_empty() {
        return Err(format!(
            "all is given back, and these are left: {stored:?} {left:?} {found:?}"
        ));
    }
    Ok(())
}

async fn assigned(store: &MemoryStore) -> BTreeSet<(IpAddr, String)> {
    let mut found = BTreeSet::new();
    for one in all::<IpamBlock>(store).await {
        for (address, owner) in block::assigned(&one.spec) {
            found.insert((address, owner.handle_id.clone().unwrap_or_default()));
        }
    }
    found
}

/// A pod that says which addresses it has.
fn pod_with(handle: &str, addresses: &[IpAddr]) -> Pod {
    let mut pod = Pod::new(handle, PodSpec::default());
    pod.metadata.namespace = Some("ns".to_owned());
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    pod.metadata.annotations.insert("cni.projectcalico.org/podIPs".to_owned(), texts.join(","));
    pod
}

/// The collector looks every quarter of an hour, with its usual patience.
async fn tidy(store: &MemoryStore, from: u64) -> Result<(), String> {
    let mut seen = collector::Observations::default();
    let all = ListOptions::consistent();
    for quarter in 0..5 {
        let now = UnixNanos(from + quarter * 16 * MINUTE);
        let plan;
        (seen, plan) = look(store, &all, &seen, now, &collector::Rules::default()).await.unwrap();
        let applied = collector::apply(store, &plan, &Clock::new(move || now)).await;
        if let Some((what, error)) = applied.errors.first() {
            return Err(format!("the collector cannot release {what}: {error}"));
        }
    }
    Ok(())
}
