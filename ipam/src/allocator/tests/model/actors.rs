//! What each node does next, computed once. A program is a function of what it has heard: the same conversation ends in the same
//! request. So the real program runs only for conversations that nobody had before, and everything else is looked up.
//!
//! What a program sees through its watches belongs to the conversation where it looked at it, and only there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::IpamBlock;
use serde_json::Value;

use super::super::super::watches::looks::{self, Looks};
use super::gate::{Desk, Reply, Sent, Verb};
use super::life::{Constants, Facts, Role, Run};
use super::reach::{Reach, Touch};
use super::scenarios::Scenario;
use super::world::{Answer, Ask, Dictionary, KeyId, Kind, ObjectId, Revision, World};
use crate::{block, space::Space};

pub(super) type LocalId = u32;

/// A node that waits: for answers, for its start, or for nothing any more.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) seat: usize,
    pub(super) facts: Facts,
    pub(super) asks: Vec<Ask>,
    /// The conversation up to here: what came before, and what was heard then.
    heard: Option<(LocalId, Heard)>,
    /// What becomes of it when it dies here.
    dead: Option<LocalId>,
}

#[derive(Clone, Debug)]
struct Heard {
    which: usize,
    answer: Answer,
    view: View,
}

/// Objects with their names.
type Named = Vec<(String, Arc<Value>)>;

/// Where a node's watches are: of blocks, and of claims.
#[derive(Clone, Copy)]
pub(super) struct Watched<'w> {
    pub(super) blocks: &'w World,
    pub(super) claims: &'w World,
}

/// What the watches of a node show.
#[derive(Clone, Debug, Eq, PartialEq)]
struct View {
    blocks: Vec<(KeyId, ObjectId, Revision)>,
    claims: Vec<(KeyId, ObjectId, Revision)>,
    /// Equal for blocks whose summaries are equal, and which births they are of: an allocator keeps no more of them.
    summaries: Vec<(KeyId, u32, u16)>,
}

/// An answer that was given before.
struct Step {
    looks: Looks,
    view: View,
    to: LocalId,
}

/// Lives kept where they are, so that the next answer need not be led up to from the start.
const KEPT: usize = 1024;

pub(super) struct Actors<'s> {
    scenario: &'s Scenario,
    pub(super) dictionary: Dictionary,
    pub(super) reach: Reach,
    constants: Constants,
    locals: Vec<Local>,
    resting: HashMap<(usize, Facts), LocalId>,
    /// By all that decides about their future.
    memories: HashMap<(usize, Facts, Vec<Ask>, String), LocalId>,
    /// Whether conversations are taken for one that remember the same.
    merges: bool,
    steps: HashMap<(LocalId, usize, Answer), Vec<Step>>,
    summaries: HashMap<ObjectId, u32>,
    summary_ids: HashMap<String, u32>,
    runs: HashMap<LocalId, Run>,
    order: VecDeque<LocalId>,
    pub(super) started: u64,
    pub(super) answered: u64,
    /// How long the real programs ran.
    pub(super) took: Duration,
}

impl<'s> Actors<'s> {
    pub(super) fn new(
        scenario: &'s Scenario,
        dictionary: Dictionary,
        constants: Constants,
    ) -> Self {
        Self {
            scenario,
            dictionary,
            reach: Reach::default(),
            constants,
            locals: Vec::new(),
            resting: HashMap::new(),
            memories: HashMap::new(),
            merges: true,
            steps: HashMap::new(),
            summaries: HashMap::new(),
            summary_ids: HashMap::new(),
            runs: HashMap::new(),
            order: VecDeque::new(),
            started: 0,
            answered: 0,
            took: Duration::ZERO,
        }
    }

    pub(super) fn local(&self, id: LocalId) -> &Local {
        &self.locals[usize::try_from(id).unwrap()]
    }

    pub(super) fn count(&self) -> usize {
        self.locals.len()
    }

    /// Whether conversations that remember the same are taken for one, from now on.
    pub(super) fn merge(&mut self, merges: bool) {
        self.merges = merges;
        self.steps.clear();
        self.memories.clear();
    }

    /// Conversations of each node.
    pub(super) fn of_seats(&self) -> Vec<usize> {
        let seats = 0..self.scenario.programs.len();
        seats.map(|seat| self.locals.iter().filter(|local| local.seat == seat).count()).collect()
    }

    fn add(&mut self, local: Local) -> LocalId {
        self.locals.push(local);
        self.reach.grow();
        LocalId::try_from(self.locals.len() - 1).unwrap()
    }

    /// A node that is to start, or one that has done everything.
    pub(super) fn resting(&mut self, seat: usize, facts: Facts) -> LocalId {
        if let Some(known) = self.resting.get(&(seat, facts.clone())) {
            return *known;
        }
        let is_over = facts.next >= self.scenario.programs[seat].1.len() && facts.unsure.is_none();
        let asks = if is_over { Vec::new() } else { vec![Ask::Start] };
        let id = self.add(Local { seat, facts: facts.clone(), asks, heard: None, dead: None });
        self.resting.insert((seat, facts), id);
        id
    }

    /// The node dies here.
    pub(super) fn dies(&mut self, id: LocalId) -> LocalId {
        let Local { seat, facts, dead, .. } = self.local(id);
        if let Some(dead) = *dead {
            return dead;
        }
        let (seat, mut facts) = (*seat, facts.clone());
        facts.life += 1;
        let dead = self.resting(seat, facts);
        self.locals[usize::try_from(id).unwrap()].dead = Some(dead);
        self.reach.goes_on(id, dead);
        dead
    }

    /// Takes note of what a node may do next.
    pub(super) fn touches(&mut self, id: LocalId, touch: &Touch) {
        self.reach.keep_up(&self.dictionary);
        self.reach.touches(id, touch);
    }

    /// The names of a node's claims, or all: the controller's look is at everything.
    pub(super) fn own_claims(&self, seat: usize) -> u128 {
        let all = self.scenario.is_of_controller(seat);
        let own = self.dictionary.keys().filter(|key| all || self.owns(seat, *key));
        own.fold(0, |names, key| names | 1 << key)
    }

    /// Tells a node an answer. Returns what becomes of it, and what of the watches it looked at.
    pub(super) fn tell(
        &mut self,
        id: LocalId,
        which: usize,
        answer: &Answer,
        watched: Watched<'_>,
    ) -> (LocalId, Looks) {
        let key = (id, which, answer.clone());
        let steps = self.steps.get(&key).map_or(&[][..], Vec::as_slice);
        if let Some(step) = steps.iter().find(|step| !step.looks.blocks && !step.looks.claims) {
            return (step.to, step.looks.clone());
        }
        let view = self.view(self.local(id).seat, watched);
        let steps = self.steps.get(&key).map_or(&[][..], Vec::as_slice);
        if let Some(step) = steps.iter().find(|step| {
            (!step.looks.blocks || step.view.summaries == view.summaries)
                && (!step.looks.claims || self.are_same_claims(id, &step.view, &view))
        }) {
            return (step.to, step.looks.clone());
        }
        let heard = Heard { which, answer: answer.clone(), view: view.clone() };
        let (to, looks) = self.find_out(&key, heard);
        self.reach.goes_on(id, to);
        self.steps.entry(key).or_default().push(Step { looks: looks.clone(), view, to });
        (to, looks)
    }

    /// A node reads of its claims what they say; the collector takes note of revisions too.
    fn are_same_claims(&self, id: LocalId, one: &View, other: &View) -> bool {
        if self.scenario.is_of_controller(self.local(id).seat) {
            return one.claims == other.claims;
        }
        let said = |view: &View| -> Vec<(KeyId, ObjectId)> {
            view.claims.iter().map(|(key, object, _)| (*key, *object)).collect()
        };
        said(one) == said(other)
    }

    /// Runs the real program one answer further.
    #[expect(clippy::disallowed_methods, reason = "how long it took is printed")]
    fn find_out(&mut self, key: &(LocalId, usize, Answer), heard: Heard) -> (LocalId, Looks) {
        let begun = Instant::now();
        self.answered += 1;
        let id = key.0;
        let before = match self.runs.remove(&id) {
            Some(run) => Some(run),
            None => self.repeat(id),
        };
        let seat = self.local(id).seat;
        let is_waiting = self.local(id).asks[heard.which] == Ask::Wait;
        let (run, looks) =
            self.hear(seat, self.local(id).facts.clone(), before, &heard, is_waiting);
        let facts = run.facts();
        let told = run.told();
        let is_over = facts.next >= self.scenario.programs[seat].1.len();
        let asks = self.asks(&run);
        // Other objects, but nothing that it looked at is another.
        let steps = self.steps.get(key).map_or(&[][..], Vec::as_slice);
        let same = steps.iter().find(|step| step.looks == looks).map(|step| step.to);
        // Another conversation, but nothing that it remembers is another.
        let memory = told.filter(|_| self.merges).map(|told| {
            let since = looks.seen.get(looks.since..).unwrap_or_default();
            let created = run.desk().created;
            (seat, facts.clone(), asks.clone(), format!("{created} {told}\n{since}"))
        });
        let same = same.or_else(|| self.memories.get(memory.as_ref()?).copied());
        let to = match same {
            Some(to) => {
                let local = self.local(to);
                let is_resting = local.heard.is_none();
                assert!(is_resting || local.asks == asks, "{asks:?} and {local:?}");
                assert_eq!(facts, local.facts);
                to
            }
            None if asks == [Ask::Wait] && is_over => self.resting(seat, facts),
            None => self.add(Local { seat, facts, asks, heard: Some((id, heard)), dead: None }),
        };
        if self.local(to).heard.is_some() {
            self.keep(to, run);
            if let Some(memory) = memory {
                self.memories.insert(memory, to);
            }
        }
        self.took += begun.elapsed();
        (to, looks)
    }

    /// Leads a new life through the same conversation. `None`: it is not started yet.
    fn repeat(&mut self, id: LocalId) -> Option<Run> {
        let mut path = Vec::new();
        let mut at = id;
        while let Some((from, heard)) = &self.local(at).heard {
            path.push((*from, heard.clone(), at));
            at = *from;
        }
        let mut run = None;
        for (from, heard, to) in path.into_iter().rev() {
            let (seat, facts) = (self.local(from).seat, self.local(from).facts.clone());
            let is_waiting = self.local(from).asks[heard.which] == Ask::Wait;
            let now = self.hear(seat, facts, run, &heard, is_waiting).0;
            let asks = self.asks(&now);
            let known = self.local(to);
            assert_eq!(
                (&asks, &now.facts()),
                (&known.asks, &known.facts),
                "it is repeated exactly"
            );
            run = Some(now);
        }
        run
    }

    fn hear(
        &mut self,
        seat: usize,
        facts: Facts,
        run: Option<Run>,
        heard: &Heard,
        is_waiting: bool,
    ) -> (Run, Looks) {
        let role = Role { scenario: self.scenario, seat };
        let shown = self.of_kinds(&heard.view);
        let Some(run) = run else {
            self.started += 1;
            let mut gated = vec!["IPAMBlock", "BlockAffinity", "IPAMHandle"];
            if self.scenario.joins() {
                gated.push("Node");
            }
            let mut desk = Desk::new(self.constants.clone(), gated);
            for (kind, objects) in shown {
                desk.show(kind, objects);
            }
            looks::take();
            let run = Run::start(role, facts, desk);
            return (run, looks::take());
        };
        let is_news = {
            let mut desk = run.desk();
            shown
                .into_iter()
                .fold(false, |is_news, (kind, objects)| desk.show(kind, objects) | is_news)
        };
        looks::take();
        run.told();
        if is_news {
            run.settle();
        }
        if is_waiting {
            let program = role.program();
            let done =
                |run: &Run| !run.desk().waiting.is_empty() || run.facts().next >= program.len();
            if !done(&run) {
                run.wait(done);
            }
        } else {
            let reply = self.reply(&heard.answer);
            run.answer(heard.which, reply);
        }
        (run, looks::take())
    }

    fn keep(&mut self, id: LocalId, run: Run) {
        self.runs.insert(id, run);
        self.order.push_back(id);
        while self.order.len() > KEPT {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.runs.remove(&oldest));
        }
    }

    fn of_kinds(&mut self, view: &View) -> Vec<(&'static str, Named)> {
        let all: Vec<_> = view.blocks.iter().chain(&view.claims).copied().collect();
        let mut kinds = vec![
            (Kind::Block, "IPAMBlock"),
            (Kind::Affinity, "BlockAffinity"),
            (Kind::Handle, "IPAMHandle"),
        ];
        if self.scenario.joins() {
            kinds.push((Kind::Node, "Node"));
        }
        let of_kind = |(kind, name)| {
            let mut some = all.clone();
            some.retain(|(key, ..)| self.dictionary.name(*key).0 == kind);
            (name, self.shown(&some))
        };
        kinds.into_iter().map(of_kind).collect()
    }

    fn shown(&mut self, objects: &[(KeyId, ObjectId, Revision)]) -> Named {
        let named = |(key, object, revision): &(KeyId, ObjectId, Revision)| {
            let value = self.dictionary.stamped(*object, *revision);
            (self.dictionary.name(*key).1.clone(), value)
        };
        objects.iter().map(named).collect()
    }

    fn view(&mut self, seat: usize, watched: Watched<'_>) -> View {
        let (mut blocks, mut claims, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
        if self.scenario.is_of_controller(seat) {
            claims.extend(watched.claims.objects());
            return View { blocks, claims, summaries };
        }
        for (key, object, revision) in watched.blocks.objects() {
            if self.dictionary.name(key).0 == Kind::Block {
                blocks.push((key, object, revision));
                summaries.push((key, self.summary(object), revision.1));
            }
        }
        let own = watched.claims.objects().filter(|(key, ..)| self.owns(seat, *key));
        claims.extend(own);
        View { blocks, claims, summaries }
    }

    /// Returns whether a name is that of a claim of a seat's node.
    pub(super) fn owns(&self, seat: usize, key: KeyId) -> bool {
        let (kind, name) = self.dictionary.name(key);
        let rest = name.strip_prefix(self.scenario.programs[seat].0);
        *kind == Kind::Affinity && rest.is_some_and(|rest| rest.starts_with('-'))
    }

    fn summary(&mut self, object: ObjectId) -> u32 {
        if let Some(known) = self.summaries.get(&object) {
            return *known;
        }
        let content = self.dictionary.content(object);
        let one = serde_json::from_value::<IpamBlock>((**content).clone()).unwrap();
        let mut space = Space::default();
        let net = block::cidr(&one.spec).unwrap();
        space.put(&one);
        let next = u32::try_from(self.summary_ids.len()).unwrap();
        let id = *self.summary_ids.entry(format!("{:?}", space.get(&net))).or_insert(next);
        self.summaries.insert(object, id);
        id
    }

    fn reply(&mut self, answer: &Answer) -> Reply {
        match answer {
            Answer::Object(_, slot) => {
                Reply::Object(self.dictionary.stamped(slot.object.unwrap(), slot.revision))
            }
            Answer::Objects(found) => {
                let mut found: Vec<_> = found
                    .iter()
                    .map(|(key, slot)| (*key, slot.object.unwrap(), slot.revision))
                    .collect();
                found.sort_by_key(|(key, ..)| self.dictionary.name(*key).clone());
                Reply::Objects(self.shown(&found).into_iter().map(|(_, object)| object).collect())
            }
            Answer::Done | Answer::Look => Reply::Done,
            Answer::NotFound => Reply::NotFound,
            Answer::AlreadyExists => Reply::AlreadyExists,
            Answer::Conflict => Reply::Conflict,
            Answer::Unavailable => Reply::Unavailable,
            Answer::Begin | Answer::Time => unreachable!("no request is answered by that"),
        }
    }

    fn asks(&mut self, run: &Run) -> Vec<Ask> {
        let desk = run.desk();
        let asks: Vec<Ask> = desk.waiting.iter().map(|(sent, _)| self.ask(sent)).collect();
        if asks.is_empty() { vec![Ask::Wait] } else { asks }
    }

    fn ask(&mut self, sent: &Sent) -> Ask {
        let kind = Kind::of(sent.kind).unwrap();
        match sent.verb {
            Verb::List => return Ask::List(kind),
            Verb::Look => return Ask::Look,
            _ => {}
        }
        let key = self.dictionary.key(kind, &sent.name);
        let number = |text: &Option<String>| text.as_ref().map(|text| text.parse::<u16>().unwrap());
        let (writes, births) = (number(&sent.guard.0), number(&sent.guard.1));
        match sent.verb {
            Verb::Get | Verb::List | Verb::Look => Ask::Get(key),
            Verb::Create => Ask::Create(key, self.dictionary.object(&sent.body)),
            Verb::Update => {
                let object = self.dictionary.object(&sent.body);
                Ask::Update(key, object, (writes.unwrap(), births.unwrap()))
            }
            Verb::Delete => Ask::Delete(key, writes, births),
        }
    }
}
