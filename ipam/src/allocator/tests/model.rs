//! A model check of the real allocator and the real collector: every order of the requests of three actors, and one fault at any
//! write (`explorer::Turn`): an injected conflict, a request that was served twice, an answer that never comes, a crash. After the last two
//! the write is done at once, at any later moment, or never.
//!
//! Programs run as they are, on a datastore that answers when it is told to (`gate`, `life`). A program is a function of what it
//! heard, so it runs once for each conversation and is looked up after that (`actors`): states are cheap, and there can be
//! millions. A state is what is stored (`world`), where each conversation stands, how many faults are left and which writes are on
//! their way. Every exploration goes on until no state is left that was not tried.
//!
//! # What is left out, and why that loses nothing
//!
//! *Conversations.* What a program does next depends on what it remembers, and on nothing else. At some points it says all that it remembers
//! ([`crate::memory`]); two conversations that come to the same memory there, and saw the same since, are one state from there on. (A part that says too
//! little would show: `Actors::repeat` compares, and the test below compares all ends.)
//!
//! *Orders.* Two steps of different nodes commute when neither writes what the other reads or writes, and the judge sees at most one of them (`reach`):
//! reads are the request's own object, and where the program looked at its watches the blocks or the claims that they show; the collector's look
//! reads everything. At a state, a set of nodes and of writes on their way is enough when nothing that the others can do, from where they are, meets
//! one of the set's next steps: in every order one of these comes first of the set, and can as well come first of all. Faults do not hinder that: moving a
//! step to the front leaves their number as it is. There are no cycles (conversations only grow), so nothing is put off for ever. A write on its
//! way may also be lost, so such a set has a node in it.
//!
//! What others can still do is not assumed but learned: for each conversation what its continuations were seen to touch. When all is tried that
//! seemed to matter, every state where something was put off is compared with what is known by then, and where it meets, taken up again, until nothing does.
//! That finds all: the first step of an order that meets something put off is asked by its node in the explored part too, because nothing before
//! it met anything, and so it is known.
//!
//! The judge looks at every state: no address is two pods', no two confirmed blocks overlap, who was given an address has it.
//! And at every end everybody starts again, nodes and collector repair with their usual patience, and then everybody must have
//! just what it was given; and when everybody has given that back, nothing may be left (`judge`).

mod actors;
mod explorer;
mod gate;
mod judge;
mod life;
mod reach;
mod scenarios;
mod world;

use proptest::prelude::*;
use store::memory::MemoryStore;
use store::{DeletePreconditions, Store, StoreError};

use api::{IpamHandle, Key};
use explorer::{Explored, Explorer};
use scenarios::Scenario;
use world::{Answer, Ask, Dictionary, Kind, World};

fn explore(scenario: &Scenario) {
    let wanted = |name: &str| std::env::var(name).ok();
    let faults = wanted("VOILE_MODEL_FAULTS").and_then(|text| text.parse().ok());
    let tries = wanted("VOILE_MODEL_TRIES").and_then(|text| text.parse().ok());
    let (faults, tries) = (faults.unwrap_or(scenario.faults), tries.unwrap_or(scenario.tries));
    match Explorer::new(&Scenario { faults, tries, ..*scenario }).explore(true) {
        Ok(explored) => {
            let Explored { states, transitions, conversations, ends, recoveries, .. } = explored;
            let Explored { rounds, of_seats, took, programs, .. } = explored;
            eprintln!(
                "{}, {faults} faults: {states} states, {transitions} steps, {ends} ends, {recoveries} recoveries; {conversations} \
                 conversations {of_seats:?}; {took:.1?} in rounds of {rounds:?}, programs ran {programs:.1?}",
                scenario.name
            );
            assert!(states > 100, "the explorer did explore");
        }
        Err(story) => panic!("{story}"),
    }
}

macro_rules! scenarios {
    ($($test:ident: $scenario:ident;)*) => {
        $(#[test]
        fn $test() {
            explore(&scenarios::$scenario);
        })*
    };
}

/// The same with watches that may stop for a while.
macro_rules! lagging {
    ($($test:ident: $scenario:ident;)*) => {
        $(#[test]
        fn $test() {
            explore(&Scenario { lags: true, ..scenarios::$scenario });
        })*
    };
}

scenarios! {
    // One fault anywhere.
    three_nodes_want_the_only_block: CLAIM;
    blocks_of_different_sizes_are_claimed_at_once: OVERLAP;
    an_old_block_is_reclaimed_by_two: RECLAIM_PAIR;
    an_old_block_is_reclaimed_while_its_owner_uses_it: DEFEND_PAIR;
    a_block_is_given_up_while_another_borrows: GIVE_UP_PAIR;
    a_block_is_given_up_and_collected: GIVE_UP_COLLECT;
    an_address_is_released_and_collected: LEFT_PAIR;
    a_dead_nodes_block_is_collected_and_borrowed_from: DEAD_PAIR;
    addresses_of_both_families_go_one_by_one: BOTH;
    addresses_of_both_families_are_collected: BOTH_LEFT;
    two_daemons_of_one_node: TWINS;
    // Three actors and one fault; a write that failed is repeated once.
    three_nodes_share_two_addresses: ASSIGN;
    an_address_is_released_collected_and_wanted: LEFT;
    a_node_comes_back_while_its_block_is_collected: BACK;
    two_daemons_of_one_node_and_the_collector: TWINS_COLLECT;
    a_dead_nodes_block_is_collected_while_two_use_it: DEAD;
    // No write is repeated.
    a_block_is_given_up_borrowed_from_and_collected: GIVE_UP;
    an_old_block_is_reclaimed_by_two_while_its_owner_uses_it: RECLAIM_FAULT;
    // Longer programs, without a fault.
    two_daemons_of_one_node_claim_where_another_claims: OVERLAP_TWINS;
    a_block_comes_again_where_another_is_claimed: OVERLAP_AGAIN;
    a_block_is_taken_over_and_its_owner_comes_again: TAKE_OVER;
    an_old_block_is_reclaimed_and_used_by_two_and_its_owner: RECLAIM;
}

lagging! {
    an_address_is_wanted_where_blocks_of_two_sizes_are_claimed: OVERLAP_CERTAIN;
    a_block_comes_late_where_another_is_claimed: OVERLAP_PAIR;
    a_pair_claims_on_an_old_view: PAIR;
    a_pair_releases_on_an_old_view: PAIR_RELEASES;
    an_old_block_is_reclaimed_on_an_old_view: RECLAIM_PAIR;
    an_owner_and_a_reclaimer_have_old_views: DEFEND_PAIR;
    a_block_is_given_up_and_borrowed_from_on_an_old_view: GIVE_UP_PAIR;
    a_block_is_given_up_and_collected_on_an_old_view: GIVE_UP_COLLECT;
    an_address_is_collected_on_an_old_view: LEFT_PAIR;
    a_dead_nodes_block_is_collected_on_an_old_view: DEAD_PAIR;
    two_daemons_of_one_node_have_old_views: TWINS;
}

#[test]
fn two_faults_of_a_pair_that_releases() {
    explore(&Scenario { faults: 2, ..scenarios::PAIR_RELEASES });
}

/// What is left out of the exploration is nothing that could end otherwise.
#[test]
fn the_reduction_reaches_every_end() {
    let lagging = Scenario { lags: true, ..scenarios::PAIR_RELEASES };
    let both = Scenario { tries: 1, ..scenarios::BOTH };
    let pairs = [scenarios::PAIR, scenarios::PAIR_RELEASES, scenarios::BOTH_LEFT];
    for scenario in pairs.into_iter().chain([lagging, both]) {
        let mut explorer = Explorer::new(&scenario);
        explorer.merge(false);
        let whole = explorer.explore(false).unwrap().states;
        let ends = explorer.ends.clone();
        explorer.merge(true);
        let merged = explorer.explore(false).unwrap().states;
        assert_eq!(explorer.ends, ends, "{}, conversations merged", scenario.name);
        let reduced = explorer.explore(true).unwrap().states;
        assert_eq!(explorer.ends, ends, "{}, orders left out", scenario.name);
        eprintln!("{}: {whole} states, merged {merged}, reduced {reduced}", scenario.name);
        assert!(reduced < merged && merged < whole, "{}", scenario.name);
    }
}

/// The checker can fail: a datastore that does not compare and swap, for one kind, is found.
#[test]
fn a_datastore_that_forgets_to_compare_is_found_with_and_without_reduction() {
    for (scenario, kind) in [
        (scenarios::PAIR_RELEASES, Kind::Block),
        (scenarios::LEFT, Kind::Block),
        (scenarios::RECLAIM, Kind::Affinity),
    ] {
        for (merges, is_reduced) in [(false, false), (true, false), (true, true)] {
            let blind = Scenario { blind: Some(kind), faults: 0, ..scenario };
            let mut explorer = Explorer::new(&blind);
            explorer.merge(merges);
            let story = explorer.explore(is_reduced).unwrap_err();
            eprintln!("{kind:?}: {}", story.lines().next().unwrap_or_default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The datastore of the model answers as the reference does.
    #[test]
    fn the_world_answers_as_the_reference(
        asked in prop::collection::vec((0..4_u8, 0..2_u8, 0..3_u8, any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(compare(asked));
    }
}

async fn compare(asked: Vec<(u8, u8, u8, bool)>) {
    let (store, mut world) = (MemoryStore::new(), World::default());
    let mut dictionary = Dictionary::default();
    // What was read of each of the two names last, from both.
    let mut read = [None, None];
    for (verb, name, count, reads) in asked {
        let at = usize::from(name);
        let name = format!("h{name}");
        let handle =
            |count: u8| crate::handle::new(&name, &"10.0.0.0/26".parse().unwrap(), count.into());
        let key = dictionary.key(Kind::Handle, &name);
        let object = |dictionary: &mut Dictionary| {
            let mut body = serde_json::to_value(handle(count)).unwrap();
            body["apiVersion"] = "projectcalico.org/v3".into();
            body["kind"] = "IPAMHandle".into();
            dictionary.object(&body)
        };
        let place = Key::cluster(&name);
        if reads && let Ok(stored) = store.get::<IpamHandle>(&place).await {
            read[at] = Some((stored, world.get(key).revision));
        }
        let (theirs, ask) = match (verb, &read[at]) {
            (0, _) => {
                let theirs = store.create(&handle(count)).await.map(drop);
                (theirs, Ask::Create(key, object(&mut dictionary)))
            }
            (1, Some((stored, base))) => {
                let mut changed = stored.clone();
                changed.spec = handle(count).spec;
                let theirs = store.update(&changed).await.map(drop);
                (theirs, Ask::Update(key, object(&mut dictionary), *base))
            }
            (2, Some((stored, base))) => {
                let guard = DeletePreconditions {
                    uid: stored.metadata.uid.clone(),
                    revision: Some(stored.revision()),
                };
                let theirs = store.delete::<IpamHandle>(&place, &guard).await;
                (theirs, Ask::Delete(key, Some(base.0), Some(base.1)))
            }
            _ => (store.get::<IpamHandle>(&place).await.map(drop), Ask::Get(key)),
        };
        let ours = world.serve(&ask, &dictionary);
        let same = matches!(
            (&theirs, &ours),
            (Ok(()), Answer::Object(..) | Answer::Done)
                | (Err(StoreError::NotFound { .. }), Answer::NotFound)
                | (Err(StoreError::AlreadyExists { .. }), Answer::AlreadyExists)
                | (Err(StoreError::Conflict { .. }), Answer::Conflict)
        );
        assert!(same, "{ask:?}: {theirs:?} and {ours:?}");
    }
}
