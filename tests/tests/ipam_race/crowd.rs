//! The allocators' processes: started, killed and started again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use store::random::Random;
use voile_tests::wait_for;

use crate::{
    journal::{Book, Reader, Record},
    judge::Violation,
    worker::{Task, Work},
};

/// The argument by which this program knows that it is an allocator.
pub(crate) const WORKER: &str = "allocator-worker";
/// Processes, each a node.
pub(crate) const NODES: usize = 8;
const ELDERS_PATIENCE: Duration = Duration::from_secs(30);

/// A node's process.
struct Member {
    life: u64,
    /// The first life of which something may be at work now.
    oldest: u64,
    child: Option<Child>,
}

/// A process that ends while the next one of its node's name works already, as while a DaemonSet is rolled out.
struct Elder {
    node: usize,
    child: Child,
}

/// All of them, and the journal that they write.
pub(crate) struct Crowd {
    members: Vec<Member>,
    elder: Option<Elder>,
    dir: PathBuf,
    reader: Reader,
    random: Random,
    epoch: u64,
    pub(crate) book: Book,
    pub(crate) journal: Vec<(u64, Record)>,
    pub(crate) found: Vec<Violation>,
    pub(crate) kills: u64,
    pub(crate) twins: u64,
}

pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

impl Crowd {
    pub(crate) fn new(dir: &Path, seed: u64) -> Self {
        let journal = Self::journal_in(dir);
        File::create(&journal).unwrap();
        let members = (0..NODES).map(|_| Member { life: 0, oldest: 0, child: None }).collect();
        Self {
            members,
            elder: None,
            dir: dir.to_owned(),
            reader: Reader::open(&journal),
            random: Random::seeded(seed),
            epoch: ipam::Clock::system().now().0,
            book: Book::default(),
            journal: Vec::new(),
            found: Vec::new(),
            kills: 0,
            twins: 0,
        }
    }

    pub(crate) fn journal_in(dir: &Path) -> PathBuf {
        dir.join("journal")
    }

    /// Takes in what was written since.
    pub(crate) fn read(&mut self) {
        for (end, record) in self.reader.read() {
            self.found.extend(self.book.apply(&record).into_iter().map(Violation::TwoHolders));
            self.journal.push((end, record));
        }
    }

    pub(crate) fn start_all(&mut self, kubeconfig: &Path, work: Work) {
        for node in 0..NODES {
            self.start(node, kubeconfig, work, false);
        }
    }

    /// Starts a node's process: it takes over all that the node has, unless a former life works on.
    fn start(&mut self, node: usize, kubeconfig: &Path, work: Work, is_beside: bool) {
        let name = name(node);
        self.read();
        let own = self.book.holdings.iter().filter(|(_, holding)| holding.node == name);
        let (mut held, mut open) = (BTreeMap::new(), std::collections::BTreeSet::new());
        for (handle, holding) in own.filter(|_| !is_beside) {
            if holding.open {
                open.insert(handle.clone());
            } else {
                held.insert(handle.clone(), holding.addresses.clone());
            }
        }
        let member = &mut self.members[node];
        member.life += 1;
        if !is_beside {
            member.oldest = member.life;
        }
        let task = Task {
            kubeconfig: kubeconfig.to_owned(),
            journal: Self::journal_in(&self.dir),
            node: name.clone(),
            life: member.life,
            oldest: member.oldest,
            seed: self.random.next_u64(),
            epoch: self.epoch,
            work,
            held,
            open,
        };
        let log = self.dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let line = serde_json::to_string(&task).unwrap() + "\n";
        child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        member.child = Some(child);
    }

    /// Kills one with SIGKILL and starts it again; or starts another of the same name beside it, until the next is killed.
    pub(crate) fn kill_one(&mut self, kubeconfig: &Path, work: Work) {
        self.elder_ends();
        let node = usize::try_from(self.random.below(NODES as u64)).unwrap();
        let mut child = self.members[node].child.take().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{} ended by itself ({status}):\n{}", name(node), self.log(node));
        }
        if self.random.chance(250) {
            self.elder = Some(Elder { node, child });
            self.twins += 1;
            return self.start(node, kubeconfig, work, true);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        self.kills += 1;
        self.start(node, kubeconfig, work, false);
    }

    /// A process ends beside its successor: it finishes what it has in work.
    fn elder_ends(&mut self) {
        let Some(mut elder) = self.elder.take() else { return };
        drop(elder.child.stdin.take());
        let status = wait_for("the elder ends", ELDERS_PATIENCE, || match elder.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err(format!("still works:\n{}", self.log(elder.node))),
        });
        assert!(status.success(), "{} ({status}):\n{}", name(elder.node), self.log(elder.node));
    }

    /// Tells all that it is enough, and waits until they have ended.
    pub(crate) fn end_all(&mut self, patience: Duration) {
        self.elder_ends();
        for member in &mut self.members {
            member.child.as_mut().map(|child| child.stdin.take());
        }
        self.wait_all(patience);
    }

    /// Waits until all have ended.
    pub(crate) fn wait_all(&mut self, patience: Duration) {
        for node in 0..NODES {
            let Some(mut child) = self.members[node].child.take() else { continue };
            let status = wait_for(&name(node), patience, || match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                _ => Err(format!("still works:\n{}", self.log(node))),
            });
            assert!(status.success(), "{} ({status}):\n{}", name(node), self.log(node));
        }
        self.read();
    }

    fn log(&self, node: usize) -> String {
        let path = self.dir.join(format!("{}.log", name(node)));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let elder = self.elder.iter_mut().map(|elder| &mut elder.child);
        let children = self.members.iter_mut().filter_map(|member| member.child.as_mut());
        for child in children.chain(elder) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
