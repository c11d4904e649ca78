//! Whether what was reported and what was stored agree. Pure: the journal, what a watch of the blocks saw, and what is stored
//! in the end go in; what must not be comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::journal::{Book, Record, TwoHolders};

/// A change of an address's owner in a block, as the datastore has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    /// Length of the journal when the change was seen: whoever caused it has written so by then.
    pub(crate) journal: u64,
    pub(crate) block: String,
    pub(crate) address: IpAddr,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// What is stored when everybody has come to rest: who has which address.
pub(crate) type Stored = BTreeSet<(IpAddr, String)>;

/// Something that must not be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Violation {
    TwoHolders(TwoHolders),
    /// It lost an address that it was told to have and did not give back.
    Lost {
        address: IpAddr,
        handle: String,
        now: Option<String>,
    },
    /// It has an address and never asked for one.
    Unasked {
        address: IpAddr,
        handle: String,
    },
    /// Two blocks gave the same address away.
    InTwoBlocks {
        address: IpAddr,
        first: String,
        second: String,
    },
    /// It was told to have an address, and in the end it has not.
    NotStored {
        address: IpAddr,
        handle: String,
    },
    /// In the end it has an address that it was not told of or has given back.
    Leaked {
        address: IpAddr,
        handle: String,
    },
    /// In the end nobody knows whether it has anything.
    Undecided {
        handle: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoHolders(TwoHolders { address, first, second }) => {
                write!(f, "{address} was given to {second} while {first} had it")
            }
            Self::Lost { address, handle, now } => {
                let now = now.as_deref().unwrap_or("nobody");
                write!(f, "{address} of {handle}, not released, went to {now}")
            }
            Self::Unasked { address, handle } => {
                write!(f, "{address} went to {handle}, which did not ask")
            }
            Self::InTwoBlocks { address, first, second } => {
                write!(f, "{address} was assigned in block {second} and in block {first}")
            }
            Self::NotStored { address, handle } => {
                write!(f, "{address} was given to {handle}, and the datastore does not say so")
            }
            Self::Leaked { address, handle } => {
                write!(f, "{address} is still stored as that of {handle}, which does not have it")
            }
            Self::Undecided { handle } => write!(f, "the last request of {handle} never ended"),
        }
    }
}

/// Compares. `forgotten` are handles whose last request nobody ended, on purpose: they must have nothing.
pub(crate) fn judge(
    journal: &[(u64, Record)],
    seen: &[Seen],
    stored: &Stored,
    forgotten: &BTreeSet<String>,
) -> (Book, Vec<Violation>) {
    let mut book = Book::default();
    let mut found = Vec::new();
    let mut lines = journal.iter().peekable();
    let mut blocks: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for change in seen {
        while let Some((_, record)) = lines.next_if(|(end, _)| *end <= change.journal) {
            found.extend(book.apply(record).into_iter().map(Violation::TwoHolders));
        }
        found.extend(changed(change, &book));
        let address = change.address;
        if change.after.is_some() {
            match blocks.insert(address, &change.block) {
                Some(first) if first != change.block => {
                    let (first, second) = (first.to_owned(), change.block.clone());
                    found.push(Violation::InTwoBlocks { address, first, second });
                }
                _ => {}
            }
        } else if blocks.get(&address) == Some(&&*change.block) {
            blocks.remove(&address);
        }
    }
    for (_, record) in lines {
        found.extend(book.apply(record).into_iter().map(Violation::TwoHolders));
    }
    found.extend(settled(&book, stored, forgotten));
    found.sort();
    found.dedup();
    (book, found)
}

/// Each of some complaints, with what the journal and the datastore know of the addresses and handles that it names, in order.
pub(crate) fn stories(
    complaints: impl IntoIterator<Item: fmt::Display>,
    journal: &[(u64, Record)],
    seen: &[Seen],
) -> Vec<String> {
    let told = complaints.into_iter().map(|complaint| {
        let text = complaint.to_string();
        std::iter::once(text.clone()).chain(story(&text, journal, seen)).collect::<Vec<_>>()
    });
    told.map(|lines| lines.join("\n")).collect()
}

fn story(text: &str, journal: &[(u64, Record)], seen: &[Seen]) -> Vec<String> {
    let named = |word: &str| text.split([' ', ',', '/']).any(|each| each == word);
    let lines = journal.iter().filter(|(_, record)| named(&record.handle));
    let lines = lines.map(|(end, record)| (*end, record.to_string()));
    let changes = seen.iter().filter(|change| named(&change.address.to_string()));
    let who = |owner: &Option<String>| owner.clone().unwrap_or_else(|| "nobody".to_owned());
    let changes = changes.map(|change| {
        let Seen { journal, block, address, before, after } = change;
        (*journal, format!("block {block}: {address} of {}, then of {}", who(before), who(after)))
    });
    let mut story: Vec<(u64, String)> = lines.chain(changes).collect();
    story.sort_by_key(|(at, _)| *at);
    story.into_iter().map(|(at, line)| format!("  {at} {line}")).collect()
}

/// A change of the datastore must have been asked for.
fn changed(change: &Seen, book: &Book) -> Vec<Violation> {
    let (address, mut found) = (change.address, Vec::new());
    if let Some(before) = &change.before
        && book.holders.get(&address) == Some(before)
    {
        let (handle, now) = (before.clone(), change.after.clone());
        found.push(Violation::Lost { address, handle, now });
    }
    if let Some(after) = &change.after
        && !book.asked.contains(after)
    {
        found.push(Violation::Unasked { address, handle: after.clone() });
    }
    found
}

/// In the end everybody has what was reported, and nobody has anything else.
fn settled(book: &Book, stored: &Stored, forgotten: &BTreeSet<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (address, handle) in stored {
        if book.holders.get(address) != Some(handle) {
            found.push(Violation::Leaked { address: *address, handle: handle.clone() });
        }
    }
    for (address, handle) in &book.holders {
        if !stored.contains(&(*address, handle.clone())) {
            found.push(Violation::NotStored { address: *address, handle: handle.clone() });
        }
    }
    let open = book.holdings.iter().filter(|(_, holding)| holding.open);
    let open = open.filter(|(handle, _)| !forgotten.contains(*handle));
    found.extend(open.map(|(handle, _)| Violation::Undecided { handle: handle.clone() }));
    found
}
