//! What the allocators' processes wrote down: one line before a request, one after its answer.
//!
//! All append to one file, a line with one write: the order of lines is the order of events, for whoever writes only after
//! the answer has come. A process that is killed leaves a line without its counterpart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    net::IpAddr,
    path::Path,
};

/// One line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) node: String,
    pub(crate) handle: String,
    pub(crate) fact: Fact,
}

/// What happened to a handle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fact {
    /// Addresses are going to be asked for.
    Want,
    /// These were assigned.
    Have(BTreeSet<IpAddr>),
    /// None was, and why in a word.
    Failed(String),
    /// All are going to be released.
    Drop,
    /// All were.
    Gone,
    /// One is going to be released.
    DropOne(IpAddr),
    /// It was.
    GoneOne(IpAddr),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, handle, fact } = self;
        match fact {
            Fact::Want => write!(f, "{node} {handle} want"),
            Fact::Have(addresses) => {
                let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                write!(f, "{node} {handle} have {}", texts.join(","))
            }
            Fact::Failed(why) => write!(f, "{node} {handle} failed {why}"),
            Fact::Drop => write!(f, "{node} {handle} drop"),
            Fact::Gone => write!(f, "{node} {handle} gone"),
            Fact::DropOne(address) => write!(f, "{node} {handle} drop-one {address}"),
            Fact::GoneOne(address) => write!(f, "{node} {handle} gone-one {address}"),
        }
    }
}

impl Record {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (node, handle) = (words.next()?.to_owned(), words.next()?.to_owned());
        let verb = words.next()?;
        let rest = words.next();
        let fact = match verb {
            "want" => Fact::Want,
            "have" => {
                let addresses = rest?.split(',').map(str::parse);
                Fact::Have(addresses.collect::<Result<_, _>>().ok()?)
            }
            "failed" => Fact::Failed(rest?.to_owned()),
            "drop" => Fact::Drop,
            "gone" => Fact::Gone,
            "drop-one" => Fact::DropOne(rest?.parse().ok()?),
            "gone-one" => Fact::GoneOne(rest?.parse().ok()?),
            _ => return None,
        };
        Some(Self { node, handle, fact })
    }
}

/// The end of the file where a process writes.
pub(crate) struct Writer(File);

impl Writer {
    pub(crate) fn open(path: &Path) -> Self {
        Self(File::options().create(true).append(true).open(path).unwrap())
    }

    pub(crate) fn write(&self, record: &Record) {
        // One write: lines of several processes never mix, and a line is there or it is not.
        (&self.0).write_all(format!("{record}\n").as_bytes()).unwrap();
    }
}

/// Reads on from where it stopped.
pub(crate) struct Reader {
    file: File,
    rest: Vec<u8>,
    at: u64,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Self {
        Self { file: File::open(path).unwrap(), rest: Vec::new(), at: 0 }
    }

    /// Returns new lines, each with the length of the file that ends with it.
    pub(crate) fn read(&mut self) -> Vec<(u64, Record)> {
        self.file.read_to_end(&mut self.rest).unwrap();
        let mut records = Vec::new();
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(whole);
        for line in std::mem::replace(&mut self.rest, rest).split_inclusive(|byte| *byte == b'\n') {
            self.at += u64::try_from(line.len()).unwrap();
            let line = String::from_utf8_lossy(line);
            let record = Record::parse(line.trim_end());
            records.push((self.at, record.unwrap_or_else(|| panic!("no record: {line:?}"))));
        }
        records
    }
}

/// What is known of a handle.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Holding {
    pub(crate) node: String,
    /// It has these for certain.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// A request is under way, or was when its process died: it may have others, or none.
    pub(crate) open: bool,
    /// It was told to have addresses: their release counts.
    was_given: bool,
}

/// Two that have the same address at the same time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TwoHolders {
    pub(crate) address: IpAddr,
    pub(crate) first: String,
    pub(crate) second: String,
}

/// What the lines say so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Handles that have something, or may.
    pub(crate) holdings: BTreeMap<String, Holding>,
    /// Who has an address for certain.
    pub(crate) holders: BTreeMap<IpAddr, String>,
    /// Handles that ever asked.
    pub(crate) asked: BTreeSet<String>,
    pub(crate) assigned: u64,
    pub(crate) released: u64,
    /// Requests that failed, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
}

impl Book {
    /// Assignments and releases that were answered.
    pub(crate) fn operations(&self) -> u64 {
        self.assigned + self.released
    }

    /// Takes in a line. Returns what must not be.
    pub(crate) fn apply(&mut self, record: &Record) -> Vec<TwoHolders> {
        let handle = &record.handle;
        let mut found = Vec::new();
        let holding = self.holdings.entry(handle.clone()).or_default();
        holding.node.clone_from(&record.node);
        match &record.fact {
            Fact::Want => {
                holding.open = true;
                self.asked.insert(handle.clone());
            }
            Fact::Have(addresses) => {
                self.assigned += 1;
                holding.open = false;
                holding.was_given = true;
                holding.addresses.clone_from(addresses);
                for address in addresses {
                    let before = self.holders.insert(*address, handle.clone());
                    found.extend(before.map(|first| TwoHolders {
                        address: *address,
                        first,
                        second: handle.clone(),
                    }));
                }
            }
            Fact::Failed(why) => *self.failed.entry(why.clone()).or_default() += 1,
            Fact::Drop => {
                holding.open = true;
                for address in std::mem::take(&mut holding.addresses) {
                    self.let_go(address, handle);
                }
            }
            Fact::DropOne(address) => {
                holding.open = true;
                if holding.addresses.remove(address) {
                    self.let_go(*address, handle);
                }
            }
            Fact::Gone => {
                self.released += u64::from(holding.was_given);
                self.holdings.remove(handle);
            }
            Fact::GoneOne(_) => {
                self.released += 1;
                holding.open = false;
                if holding.addresses.is_empty() {
                    self.holdings.remove(handle);
                }
            }
        }
        found
    }

    fn let_go(&mut self, address: IpAddr, handle: &str) {
        if self.holders.get(&address).is_some_and(|holder| holder == handle) {
            self.holders.remove(&address);
        }
    }
}
