//! Tries every order of every request, and everything that can become of each.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::super::super::watches::looks::Looks;
use super::actors::{Actors, LocalId, Watched};
use super::judge::Judge;
use super::life::Facts;
use super::reach::Touch;
use super::scenarios::Scenario;
use super::world::{Answer, Ask, Kind, World};

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
    /// Watches of a node stop, and show what there was, for as long as they like.
    Stops(usize, Lag),
    /// They show everything again.
    Resumes(usize),
}

/// Watches that stop.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Lag {
    Blocks,
    Claims,
    All,
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
    /// The node whose watches stopped, and what they show.
    stopped: Option<(usize, Lag, World)>,
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

/// What may be next, of one node.
struct Move {
    seat: usize,
    /// Whatever becomes of its requests.
    touch: Touch,
    next: Vec<(Choice, State)>,
}

/// A state where not everything was tried.
struct Partial {
    state: State,
    /// Nodes whose moves were put off.
    left: Vec<usize>,
    /// What those touch that were not.
    touch: Touch,
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
    /// States, each time when all was tried that seemed to matter.
    pub(super) rounds: Vec<usize>,
    /// Conversations of each node.
    pub(super) of_seats: Vec<usize>,
    pub(super) took: Duration,
    /// Of that, by the real programs.
    pub(super) programs: Duration,
}

pub(super) struct Explorer<'s> {
    scenario: &'s Scenario,
    actors: Actors<'s>,
    judge: Judge<'s>,
    first: State,
    is_reduced: bool,
    partial: Vec<Partial>,
    seen: HashSet<u64>,
    pub(super) ends: HashSet<u64>,
    transitions: u64,
    rounds: Vec<usize>,
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
        let (faults, flying) = (scenario.faults, Vec::new());
        let first = State { world, locals, faults, flying, stopped: None };
        Self {
            scenario,
            actors,
            judge,
            first,
            is_reduced: true,
            partial: Vec::new(),
            seen: HashSet::new(),
            ends: HashSet::new(),
            transitions: 0,
            rounds: Vec::new(),
            deadline: None,
        }
    }

    /// Whether conversations after which a program remembers the same are taken for one.
    pub(super) fn merge(&mut self, merges: bool) {
        self.actors.merge(merges);
    }

    /// Explores to the end. `Err` is the story of something wrong.
    #[expect(clippy::disallowed_methods, reason = "how long it took is printed")]
    pub(super) fn explore(&mut self, is_reduced: bool) -> Result<Explored, String> {
        let begun = Instant::now();
        let patience = std::env::var("VOILE_MODEL_SECONDS").ok().and_then(|text| text.parse().ok());
        self.deadline = patience.map(|seconds| begun + Duration::from_secs(seconds));
        self.is_reduced = is_reduced;
        self.rounds.clear();
        self.seen.clear();
        self.ends.clear();
        self.partial.clear();
        self.transitions = 0;
        let mut stack: Vec<Frame> = Vec::new();
        self.enter(self.first.clone(), &mut stack)?;
        loop {
            self.go_through(&mut stack)?;
            self.rounds.push(self.seen.len());
            self.look_again(&mut stack);
            if stack.is_empty() {
                break;
            }
        }
        Ok(Explored {
            states: self.seen.len(),
            transitions: self.transitions,
            ends: self.ends.len(),
            conversations: self.actors.count(),
            recoveries: self.judge.recoveries(),
            rounds: self.rounds.clone(),
            of_seats: self.actors.of_seats(),
            took: begun.elapsed(),
            programs: self.actors.took,
        })
    }

    fn go_through(&mut self, stack: &mut Vec<Frame>) -> Result<(), String> {
        while let Some(frame) = stack.last_mut() {
            let Some((choice, state)) = frame.next.pop() else {
                stack.pop();
                continue;
            };
            frame.chosen = Some(choice);
            self.transitions += 1;
            self.enter(state, stack)?;
        }
        Ok(())
    }

    /// Takes up again the states where moves were put off that, as is known now, meet those that were tried.
    fn look_again(&mut self, stack: &mut Vec<Frame>) {
        let known = std::mem::take(&mut self.partial);
        for partial in known {
            let reach = &self.actors.reach;
            let left = partial.left.iter();
            let is_wrong = left.map(|seat| partial.state.locals[*seat]);
            if is_wrong.into_iter().any(|local| reach.meets_later(&partial.touch, local)) {
                let next = self.successors(&partial.state);
                stack.push(Frame { state: partial.state, next, chosen: None });
            } else {
                self.partial.push(partial);
            }
        }
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
                "{}: out of time: {} states, {} conversations {:?}, programs {:?}, rounds {:?}, open {depth:?}",
                self.scenario.name,
                self.seen.len(),
                self.actors.count(),
                self.actors.of_seats(),
                self.actors.took,
                self.rounds,
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
        let busy = (0..state.locals.len())
            .filter(|seat| !self.actors.local(state.locals[*seat]).asks.is_empty());
        let busy: Vec<usize> = busy.collect();
        let moves: Vec<Move> = busy.into_iter().map(|seat| self.of_seat(state, seat)).collect();
        let (chosen, arriving) = if self.is_reduced {
            self.enough(state, &moves)
        } else {
            (vec![true; moves.len()], vec![true; state.flying.len()])
        };
        let mut next = Vec::new();
        for (one, _) in moves.into_iter().zip(chosen).filter(|(_, is_chosen)| *is_chosen) {
            next.extend(one.next);
        }
        for (at, ask) in state.flying.iter().enumerate().filter(|(at, _)| arriving[*at]) {
            let mut after = state.clone();
            after.flying.remove(at);
            after.world.serve(ask, &self.actors.dictionary);
            after.forget_vain();
            next.push((Choice::Arrives(at), after));
        }
        next
    }

    /// Chooses moves and arrivals of which one comes first in every order, as far as it matters: nothing that the others do, before one of
    /// these is done, can meet it.
    fn enough(&mut self, state: &State, moves: &[Move]) -> (Vec<bool>, Vec<bool>) {
        let flying: Vec<Touch> = state.flying.iter().map(|ask| self.arrival(ask)).collect();
        let mut best: Option<(usize, Vec<bool>, Vec<bool>, Touch)> = None;
        for first in 0..moves.len() {
            let mut chosen = vec![false; moves.len()];
            let mut arriving = vec![false; flying.len()];
            chosen[first] = true;
            let mut touch = moves[first].touch;
            loop {
                let more = (0..moves.len()).find(|at| {
                    let local = state.locals[moves[*at].seat];
                    !chosen[*at] && self.actors.reach.meets_later(&touch, local)
                });
                if let Some(at) = more {
                    chosen[at] = true;
                    touch = touch.and(moves[at].touch);
                    continue;
                }
                let lands =
                    |at: &usize| !arriving[*at] && self.actors.reach.meet(&touch, &flying[*at]);
                let Some(at) = (0..flying.len()).find(lands) else { break };
                arriving[at] = true;
                touch = touch.and(flying[at]);
            }
            let of = |at: usize| if chosen[at] { moves[at].next.len() } else { 0 };
            let cost = (0..moves.len()).map(of).sum::<usize>()
                + arriving.iter().filter(|one| **one).count();
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, chosen, arriving, touch));
            }
        }
        let Some((_, chosen, arriving, touch)) = best else {
            return (Vec::new(), vec![true; flying.len()]);
        };
        let left = moves.iter().zip(&chosen).filter(|(_, is_chosen)| !**is_chosen);
        let left: Vec<usize> = left.map(|(one, _)| one.seat).collect();
        if !left.is_empty() {
            self.partial.push(Partial { state: state.clone(), left, touch });
        }
        (chosen, arriving)
    }

    fn arrival(&self, ask: &Ask) -> Touch {
        let touch = Touch::of(ask);
        let kind = ask.key().map(|key| self.actors.dictionary.name(key).0);
        if matches!(kind, Some(Kind::Block | Kind::Affinity)) { touch.seen() } else { touch }
    }

    /// What a node may do next.
    fn of_seat(&mut self, state: &State, seat: usize) -> Move {
        let local = state.locals[seat];
        let (mut touch, mut next) = (Touch::default(), Vec::new());
        for which in 0..self.actors.local(local).asks.len() {
            let ask = self.actors.local(local).asks[which].clone();
            touch = touch.and(Touch::of(&ask));
            for turn in turns(&ask, state) {
                let (after, looks) = self.after(state, seat, which, &ask, turn);
                if looks.blocks {
                    touch = touch.reading_kind(Kind::Block);
                }
                if looks.claims {
                    touch = touch.reading(self.actors.own_claims(seat));
                }
                if !self.is_invisible(state, &after, seat, &ask) {
                    touch = touch.seen();
                }
                next.push((Choice::Turn { seat, which, turn }, after));
            }
        }
        if state.stopped.as_ref().is_some_and(|(stopped, ..)| *stopped == seat) {
            // It was read when they stopped; others do not notice.
            let after = State { stopped: None, ..state.clone() };
            next.push((Choice::Resumes(seat), after));
        } else if self.scenario.lags && state.faults > 0 && state.stopped.is_none() {
            let is_of_controller = self.scenario.is_of_controller(seat);
            touch = touch.reading_kind(Kind::Block).reading(self.actors.own_claims(seat));
            let lags = [Lag::All, Lag::Blocks, Lag::Claims];
            let lags = lags.into_iter().filter(|lag| *lag == Lag::All || !is_of_controller);
            for lag in lags {
                let stopped = Some((seat, lag, state.world.clone()));
                let after = State { stopped, faults: state.faults - 1, ..state.clone() };
                next.push((Choice::Stops(seat, lag), after));
            }
        }
        self.actors.touches(local, &touch);
        Move { seat, touch, next }
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
            Turn::Dies => (self.actors.dies(local), Looks::default()),
            _ => {
                let now = &after.world;
                let mut watched = Watched { blocks: now, claims: now };
                if let Some((_, lag, old)) = after.stopped.as_ref().filter(|one| one.0 == seat) {
                    let sees = |is_old| if is_old { old } else { now };
                    watched.blocks = sees(*lag != Lag::Claims);
                    watched.claims = sees(*lag != Lag::Blocks);
                }
                self.actors.tell(local, which, &answer, watched)
            }
        };
        let is_over = turn == Turn::Dies || self.actors.local(to).asks.is_empty();
        if is_over && after.stopped.as_ref().is_some_and(|(stopped, ..)| *stopped == seat) {
            after.stopped = None;
        }
        after.locals[seat] = to;
        after.forget_vain();
        (after, looks)
    }

    /// How it came to that.
    fn story(&self, stack: &[Frame]) -> String {
        let mut story = String::new();
        if !self.rounds.is_empty() {
            story.push_str("  (from a state that was reached before)\n");
        }
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
                Choice::Stops(seat, lag) => {
                    format!("the watches of {} stop: {lag:?}", self.scenario.programs[seat].0)
                }
                Choice::Resumes(seat) => {
                    format!("the watches of {} go on", self.scenario.programs[seat].0)
                }
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
