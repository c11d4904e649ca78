//! Tries every order of every request, and everything that can become of each.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::super::super::watches::looks::Looks;
use super::actors::{Actors, LocalId};
use super::judge::Judge;
use super::life::Facts;
use super::scenarios::Scenario;
use super::world::{Answer, Ask, KeyId, Kind, World};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Turn {
    Passes,
    /// Somebody else wrote first, as far as the node can see.
    Conflicts,
    /// Somebody on the way sent it twice: it is done, and the answer is that of the second.
    Repeats,
    /// No answer comes: it is done now, later or never.
    Late,
    /// The node dies just after sending it, and starts again: it is done now, later or never.
    Dies,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Choice {
    Turn {
        seat: usize,
        which: usize,
        turn: Turn,
    },
    /// A write arrives whose answer nobody waits for.
    Arrives(usize),
}

/// Everything at one moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct State {
    world: World,
    locals: Vec<LocalId>,
    /// How many faults are left.
    faults: u8,
    /// Writes on their way, unless they are lost.
    flying: Vec<Ask>,
}

impl State {
    /// Drops what is on its way and can do nothing any more.
    fn forget_vain(&mut self) {
        let Self { world, flying, .. } = self;
        flying.retain(|ask| world.can_still_happen(ask));
    }
}

fn number(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What a step depends on, and whether the judge can see it.
struct Footprint {
    key: Option<KeyId>,
    reads_all: bool,
    reads_blocks: bool,
    reads_claims: bool,
    is_visible: bool,
}

/// Which names each node was seen to touch, by the operation that it was at.
#[derive(Default)]
struct Touched {
    /// By seat and operation: a bit for each name, and one for each kind that is read as a whole.
    masks: Vec<Vec<(u128, u8)>>,
    /// Something was learned in this round.
    is_new: bool,
}

impl Touched {
    fn new(scenario: &Scenario) -> Self {
        let masks = scenario.programs.iter().map(|(_, ops)| vec![(0, 0); ops.len() + 1]);
        Self { masks: masks.collect(), is_new: false }
    }

    fn note(&mut self, seat: usize, op: usize, ask: &Ask) {
        let (mut keys, mut kinds) = (0_u128, 0_u8);
        match (ask, ask.key()) {
            (Ask::List(kind), _) => kinds |= 1 << (*kind as u8),
            (Ask::Look, _) => kinds = u8::MAX,
            (_, Some(key)) => keys |= 1 << key,
            _ => {}
        }
        // Whoever is at an earlier operation will come here.
        for mask in &mut self.masks[seat][..=op] {
            let before = *mask;
            *mask = (before.0 | keys, before.1 | kinds);
            self.is_new |= *mask != before;
        }
    }

    /// Whether a node touches a name, from some operation on.
    fn will(&self, seat: usize, from: usize, key: KeyId, kind: Kind) -> bool {
        let (keys, kinds) = self.masks[seat][from];
        keys & (1 << key) != 0 || kinds & (1 << (kind as u8)) != 0
    }
}

struct Frame {
    state: State,
    next: Vec<(Choice, State)>,
    chosen: Option<Choice>,
}

/// What was explored.
#[derive(Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) transitions: u64,
    pub(super) ends: usize,
    pub(super) conversations: usize,
    pub(super) recoveries: usize,
    /// How often the whole was explored, until nothing new was learned of who touches what.
    pub(super) rounds: u32,
    pub(super) took: Duration,
    /// Of that, by the real programs.
    pub(super) programs: Duration,
}

pub(super) struct Explorer<'s> {
    scenario: &'s Scenario,
    actors: Actors<'s>,
    judge: Judge<'s>,
    first: State,
    touched: Touched,
    is_reduced: bool,
    seen: HashSet<u64>,
    pub(super) ends: HashSet<u64>,
    transitions: u64,
    deadline: Option<Instant>,
}

impl<'s> Explorer<'s> {
    pub(super) fn new(scenario: &'s Scenario) -> Self {
        let (dictionary, world, constants, held) = super::judge::prepare(scenario);
        let judge = Judge::new(scenario, constants.clone());
        let mut actors = Actors::new(scenario, dictionary, constants);
        let locals = held
            .into_iter()
            .enumerate()
            .map(|(seat, held)| actors.resting(seat, Facts { held, ..Facts::default() }));
        let locals: Vec<LocalId> = locals.collect();
        let first = State { world, locals, faults: scenario.faults, flying: Vec::new() };
        Self {
            scenario,
            actors,
            judge,
            first,
            touched: Touched::new(scenario),
            is_reduced: true,
            seen: HashSet::new(),
            ends: HashSet::new(),
            transitions: 0,
            deadline: None,
        }
    }

    /// Explores to the end. `Err` is the story of something wrong.
    #[expect(clippy::disallowed_methods, reason = "how long it took is printed")]
    pub(super) fn explore(&mut self, is_reduced: bool) -> Result<Explored, String> {
        let begun = Instant::now();
        let patience = std::env::var("VOILE_MODEL_SECONDS").ok().and_then(|text| text.parse().ok());
        self.deadline = patience.map(|seconds| begun + Duration::from_secs(seconds));
        self.is_reduced = is_reduced;
        let mut rounds = 0;
        // Most of who touches what shows without a fault, and much sooner.
        for faults in
            if is_reduced { vec![0, self.scenario.faults] } else { vec![self.scenario.faults] }
        {
            self.first.faults = faults;
            loop {
                rounds += 1;
                self.touched.is_new = false;
                self.seen.clear();
                self.ends.clear();
                self.transitions = 0;
                self.round()?;
                if !(is_reduced && self.touched.is_new) {
                    break;
                }
            }
        }
        Ok(Explored {
            states: self.seen.len(),
            transitions: self.transitions,
            ends: self.ends.len(),
            conversations: self.actors.count(),
            recoveries: self.judge.recoveries(),
            rounds,
            took: begun.elapsed(),
            programs: self.actors.took,
        })
    }

    fn round(&mut self) -> Result<(), String> {
        let mut stack: Vec<Frame> = Vec::new();
        self.enter(self.first.clone(), &mut stack)?;
        while let Some(frame) = stack.last_mut() {
            let Some((choice, state)) = frame.next.pop() else {
                stack.pop();
                continue;
            };
            frame.chosen = Some(choice);
            if self.is_reduced && self.touched.is_new {
                // Something that was taken for private is not: what was left out must be looked at.
                return Ok(());
            }
            self.transitions += 1;
            self.enter(state, &mut stack)?;
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "a developer may set a limit")]
    fn enter(&mut self, state: State, stack: &mut Vec<Frame>) -> Result<(), String> {
        let number = number(&state);
        if !self.seen.insert(number) {
            return Ok(());
        }
        if self.seen.len().is_multiple_of(1024)
            && self.deadline.is_some_and(|end| Instant::now() > end)
        {
            let depth: Vec<usize> = stack.iter().map(|frame| frame.next.len()).collect();
            return Err(format!(
                "{}: out of time: {} states, {} conversations, programs {:?}, open {depth:?}",
                self.scenario.name,
                self.seen.len(),
                self.actors.count(),
                self.actors.took
            ));
        }
        let facts: Vec<&Facts> =
            state.locals.iter().map(|id| &self.actors.local(*id).facts).collect();
        let is_end = state.locals.iter().all(|id| self.actors.local(*id).asks.is_empty());
        let mut verdict = self.judge.nothing_twice(&state.world, &facts, &self.actors.dictionary);
        if verdict.is_ok() && is_end {
            self.ends.insert(number);
            verdict = self.judge.recovers(&state.world, &facts, &self.actors.dictionary);
        }
        let next = match verdict {
            Ok(()) => self.successors(&state),
            Err(wrong) => {
                stack.push(Frame { state, next: Vec::new(), chosen: None });
                return Err(format!("{}: {wrong}\n{}", self.scenario.name, self.story(stack)));
            }
        };
        stack.push(Frame { state, next, chosen: None });
        Ok(())
    }

    fn successors(&mut self, state: &State) -> Vec<(Choice, State)> {
        let (mut next, mut steps) = (Vec::new(), Vec::new());
        for seat in 0..state.locals.len() {
            let (from, first) = (next.len(), steps.len());
            let is_private = self.of_seat(state, seat, &mut next, &mut steps);
            if self.is_reduced && is_private && steps.len() > first {
                next.drain(..from);
                return next;
            }
        }
        for (at, ask) in state.flying.iter().enumerate() {
            // It may wait until it matters.
            let matters = steps.is_empty() || steps.iter().any(|step| self.meet(step, ask));
            if self.is_reduced && !matters {
                continue;
            }
            let mut after = state.clone();
            after.flying.remove(at);
            after.world.serve(ask, &self.actors.dictionary);
            after.forget_vain();
            next.push((Choice::Arrives(at), after));
        }
        next
    }

    /// Whether it can make a difference if a write arrives before or after a step.
    fn meet(&self, step: &Footprint, flying: &Ask) -> bool {
        let Some(key) = flying.key() else { return true };
        let kind = self.actors.dictionary.name(key).0;
        let is_judged = matches!(kind, Kind::Block | Kind::Affinity);
        step.reads_all
            || step.key == Some(key)
            || (step.reads_blocks && kind == Kind::Block)
            || (step.reads_claims && kind == Kind::Affinity)
            || (step.is_visible && is_judged)
    }

    /// Adds what a node may do next. Returns whether nobody else can notice, or change what comes of it, whenever it happens.
    fn of_seat(
        &mut self,
        state: &State,
        seat: usize,
        next: &mut Vec<(Choice, State)>,
        steps: &mut Vec<Footprint>,
    ) -> bool {
        let local = state.locals[seat];
        let mut is_private = true;
        for which in 0..self.actors.local(local).asks.len() {
            let ask = self.actors.local(local).asks[which].clone();
            self.touched.note(seat, self.actors.local(local).facts.next, &ask);
            is_private &= self.is_private(state, seat, &ask);
            for turn in turns(&ask, state) {
                let (after, looks) = self.after(state, seat, which, &ask, turn);
                let step = Footprint {
                    key: ask.key(),
                    reads_all: matches!(ask, Ask::List(_) | Ask::Look),
                    reads_blocks: looks.blocks,
                    reads_claims: looks.claims,
                    is_visible: !self.is_invisible(state, &after, seat, &ask),
                };
                is_private &= !step.reads_blocks && !step.is_visible;
                is_private &= !(step.reads_claims && self.claims_are_shared(state, seat));
                steps.push(step);
                next.push((Choice::Turn { seat, which, turn }, after));
            }
        }
        is_private
    }

    /// Whether nobody else, from where it is now, ever touches what a request is about.
    fn is_private(&self, state: &State, seat: usize, ask: &Ask) -> bool {
        let Some(key) = ask.key() else { return *ask == Ask::Wait };
        let kind = self.actors.dictionary.name(key).0;
        kind != Kind::Block
            && !state.flying.iter().any(|flying| flying.key() == Some(key))
            && !self.is_touched_by_others(state, seat, key, kind)
    }

    fn is_touched_by_others(&self, state: &State, seat: usize, key: KeyId, kind: Kind) -> bool {
        let others = state.locals.iter().enumerate().filter(|(other, _)| *other != seat);
        let mut busy = others.filter(|(_, local)| !self.actors.local(**local).asks.is_empty());
        busy.any(|(other, local)| {
            let from = self.actors.local(*local).facts.next;
            self.actors.owns(other, key) || self.touched.will(other, from, key, kind)
        })
    }

    fn claims_are_shared(&self, state: &State, seat: usize) -> bool {
        if self.scenario.is_of_controller(seat) {
            return true;
        }
        let of_seat = |key: KeyId| self.actors.owns(seat, key);
        state.flying.iter().filter_map(Ask::key).any(of_seat)
            || self
                .actors
                .dictionary
                .keys()
                .filter(|key| of_seat(*key))
                .any(|key| self.is_touched_by_others(state, seat, key, Kind::Affinity))
    }

    /// Whether what the judge looks at stays as it is.
    fn is_invisible(&self, before: &State, after: &State, seat: usize, ask: &Ask) -> bool {
        let facts = |state: &State| &self.actors.local(state.locals[seat]).facts.held;
        let counts = |state: &State| {
            let slot = ask.key().map(|key| state.world.get(key));
            slot.and_then(|slot| slot.object).is_some_and(|object| {
                self.actors
                    .dictionary
                    .content(object)
                    .pointer("/spec/state")
                    .is_some_and(|state| state != "pending" && state != "pendingDeletion")
            })
        };
        let is_of_block =
            ask.key().is_some_and(|key| self.actors.dictionary.name(key).0 == Kind::Block);
        let stays = !is_of_block || before.world == after.world;
        stays && facts(before) == facts(after) && counts(before) == counts(after)
    }

    fn after(
        &mut self,
        state: &State,
        seat: usize,
        which: usize,
        ask: &Ask,
        turn: Turn,
    ) -> (State, Looks) {
        let mut after = state.clone();
        after.faults -= u8::from(turn != Turn::Passes);
        let dictionary = &self.actors.dictionary;
        let ask = &match ask.key() {
            Some(key) if Some(dictionary.name(key).0) == self.scenario.blind => {
                after.world.blinded(ask)
            }
            _ => ask.clone(),
        };
        let answer = match turn {
            Turn::Passes => after.world.serve(ask, dictionary),
            Turn::Conflicts => Answer::Conflict,
            Turn::Repeats => {
                after.world.serve(ask, dictionary);
                after.world.serve(ask, dictionary)
            }
            Turn::Late | Turn::Dies => {
                after.flying.push(ask.clone());
                Answer::Unavailable
            }
        };
        let local = state.locals[seat];
        let (to, looks) = match turn {
            Turn::Dies => (self.actors.dead(local), Looks::default()),
            _ => self.actors.tell(local, which, &answer, &after.world),
        };
        after.locals[seat] = to;
        after.forget_vain();
        (after, looks)
    }

    /// How it came to that.
    fn story(&self, stack: &[Frame]) -> String {
        let mut story = String::new();
        for frame in stack {
            let Some(chosen) = frame.chosen else { continue };
            let line = match chosen {
                Choice::Turn { seat, which, turn } => {
                    let local = self.actors.local(frame.state.locals[seat]);
                    let turn =
                        if turn == Turn::Passes { String::new() } else { format!(" {turn:?}:") };
                    let node = self.scenario.programs[seat].0;
                    format!("{node}{turn} {}", self.told(&local.asks[which]))
                }
                Choice::Arrives(at) => format!("arrives: {}", self.told(&frame.state.flying[at])),
            };
            let _ = writeln!(story, "  {line}");
        }
        story
    }

    fn told(&self, ask: &Ask) -> String {
        let dictionary = &self.actors.dictionary;
        let name = ask.key().map(|key| {
            let (kind, name) = dictionary.name(key);
            format!("{kind:?} {name}")
        });
        let name = name.unwrap_or_default();
        match ask {
            Ask::Start => "starts".to_owned(),
            Ask::Wait => "waits".to_owned(),
            Ask::Look => "looks at everything".to_owned(),
            Ask::List(kind) => format!("lists {kind:?}"),
            Ask::Get(_) => format!("reads {name}"),
            Ask::Create(_, object) => {
                format!("creates {name} {}", dictionary.content(*object)["spec"])
            }
            Ask::Update(_, object, base) => {
                format!("updates {name} at {base:?} {}", dictionary.content(*object)["spec"])
            }
            Ask::Delete(_, writes, births) => format!("deletes {name} at {writes:?} {births:?}"),
        }
    }
}

/// What can become of a request.
fn turns(ask: &Ask, state: &State) -> Vec<Turn> {
    let mut turns = vec![Turn::Passes];
    if state.faults == 0 || !ask.is_write() {
        return turns;
    }
    turns.extend([Turn::Late, Turn::Dies]);
    // A fault that changes nothing is none.
    let succeeds = match *ask {
        Ask::Create(key, _) => state.world.get(key).object.is_none(),
        _ => state.world.can_still_happen(ask),
    };
    if succeeds {
        turns.push(Turn::Repeats);
        if !matches!(ask, Ask::Create(..)) {
            turns.push(Turn::Conflicts);
        }
    }
    turns
}
