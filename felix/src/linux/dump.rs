//! Our table as the kernel has it. Nothing of any other table is looked at beyond its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    encode::{hook_of_number, kind_of_name, predecessor, types_of_id},
    nft::{DUMP_RETRY, Nft},
    uapi::{INET, chain, elem, msg, rule, set, table, verdict},
    wire::{Attrs, Message, fixed},
};
use crate::nft::{
    Actual, ActualChain, Base, ChainName, Element, Fingerprint, Map, MapData, MapName, MapValue,
    Policy, Set, SetName, Verdict,
};

/// Attempts before giving up on a table that changes all the time.
const ATTEMPTS: usize = 50;

/// A set or map without its members.
struct Definition {
    name: String,
    flags: u32,
    key: Vec<crate::nft::KeyType>,
    data: Option<MapData>,
}

/// One element as the kernel lists it.
struct Item {
    key: Box<[u8]>,
    end: Option<Box<[u8]>>,
    closes: bool,
    value: Option<MapValue>,
}

impl Nft {
    /// Reads the table; what it read belongs to the generation it remembers for the next commit.
    pub fn read(&mut self, name: &str) -> io::Result<Actual> {
        for _ in 0..ATTEMPTS {
            let before = self.refresh()?;
            if let Some(actual) = self.read_once(name)?
                && self.generation()? == before
            {
                return Ok(actual);
            }
            pause();
        }
        Err(io::Error::other("the ruleset changes too fast to be read; find out who writes it"))
    }

    fn read_once(&mut self, name: &str) -> io::Result<Option<Actual>> {
        if !self.exists(name)? {
            return Ok(Some(Actual::default()));
        }
        let mut actual = Actual { exists: true, ..Actual::default() };
        let mut whole = self.read_chains(name, &mut actual.chains)?;
        whole &= self.read_rules(name, &mut actual.chains)?;
        let mut definitions = Vec::new();
        whole &= self.socket.dump(
            msg::GETSET,
            |out| out.string(set::TABLE, name),
            |message| definitions.extend(definition(message, name)),
        )?;
        for each in definitions {
            let mut items = Vec::new();
            if !each.key.is_empty() {
                match self.read_items(name, &each.name, &mut items) {
                    Ok(complete) => whole &= complete,
                    // Gone since the list of sets was read.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => whole = false,
                    Err(error) => return Err(error),
                }
            }
            add_definition(&mut actual, each, items);
        }
        Ok(whole.then_some(actual))
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        let found = self.socket.ask(
            msg::GETTABLE,
            |out| out.string(table::NAME, name),
            |message| message.nft(),
        );
        match found {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_chains(
        &mut self,
        name: &str,
        chains: &mut BTreeMap<ChainName, ActualChain>,
    ) -> io::Result<bool> {
        self.socket.dump(
            msg::GETCHAIN,
            |out| out.string(chain::TABLE, name),
            |message| {
                let attrs = message.attrs();
                if is_ours(message, name)
                    && let Some(found) = attrs.string(chain::NAME)
                {
                    chains.insert(ChainName::new(found), actual_chain(&attrs));
                }
            },
        )
    }

    fn read_rules(
        &mut self,
        name: &str,
        chains: &mut BTreeMap<ChainName, ActualChain>,
    ) -> io::Result<bool> {
        self.socket.dump(
            msg::GETRULE,
            |out| out.string(rule::TABLE, name),
            |message| {
                let attrs = message.attrs();
                if is_ours(message, name)
                    && let Some(found) = attrs.string(rule::CHAIN)
                {
                    let fingerprint = attrs.get(rule::USERDATA).and_then(fingerprint);
                    chains.entry(ChainName::new(found)).or_default().rules.push(fingerprint);
                }
            },
        )
    }

    fn read_items(&mut self, name: &str, of: &str, items: &mut Vec<Item>) -> io::Result<bool> {
        self.socket.dump(
            msg::GETSETELEM,
            |out| {
                out.string(elem::LIST_TABLE, name);
                out.string(elem::LIST_SET, of);
            },
            |message| {
                let list = message.attrs().nested(elem::LIST_ELEMENTS);
                items.extend(list.into_iter().flatten().filter_map(|(_, bytes)| item(bytes)));
            },
        )
    }
}

#[expect(clippy::disallowed_methods, reason = "the rim: a dump that raced waits a moment")]
fn pause() {
    std::thread::sleep(DUMP_RETRY);
}

/// The table's name is the first attribute of chains, rules and sets alike.
fn is_ours(message: &Message<'_>, name: &str) -> bool {
    message.family() == Some(INET) && message.attrs().string(chain::TABLE) == Some(name)
}

fn actual_chain(attrs: &Attrs<'_>) -> ActualChain {
    let Some(hook) = attrs.nested(chain::HOOK) else { return ActualChain::default() };
    let base = || {
        let priority = fixed(hook.get(chain::HOOK_PRIORITY)?, 0).map(i32::from_be_bytes)?;
        let policy = match attrs.be32(chain::POLICY)? {
            0 => Policy::Drop,
            _ => Policy::Accept,
        };
        let kind = kind_of_name(attrs.string(chain::TYPE)?)?;
        Some(Base { kind, hook: hook_of_number(hook.be32(chain::HOOK_NUM)?)?, priority, policy })
    };
    match base() {
        Some(base) => ActualChain { base: Some(base), rules: Vec::new() },
        // A hook we never write: a rule without fingerprint makes it differ from anything.
        None => ActualChain { base: None, rules: vec![None] },
    }
}

/// Our entry of a rule's userdata.
fn fingerprint(userdata: &[u8]) -> Option<Fingerprint> {
    let mut rest = userdata;
    while let [kind, len, tail @ ..] = rest {
        let value = tail.get(..usize::from(*len))?;
        if *kind == rule::UDATA_FINGERPRINT {
            return fixed(value, 0).map(u64::from_be_bytes).map(Fingerprint);
        }
        rest = tail.get(usize::from(*len)..)?;
    }
    None
}

fn definition(message: &Message<'_>, name: &str) -> Option<Definition> {
    let attrs = message.attrs();
    let flags = attrs.be32(set::FLAGS).unwrap_or(0);
    if !is_ours(message, name) || flags & set::ANONYMOUS != 0 {
        return None;
    }
    let data = (flags & set::MAP != 0).then(|| match attrs.be32(set::DATA_TYPE) {
        Some(set::VERDICT_TYPE) => MapData::Verdict,
        other => MapData::Values(types_of_id(other.unwrap_or(0))),
    });
    // Flags we never set (timeouts, rule-updated sets) make it someone else's: an empty key differs from all of ours.
    let known = set::INTERVAL | set::MAP | set::CONCAT;
    let key = if flags & !known == 0 {
        attrs.be32(set::KEY_TYPE).map(types_of_id).unwrap_or_default()
    } else {
        Vec::new()
    };
    Some(Definition { name: attrs.string(set::NAME)?.to_owned(), flags, key, data })
}

fn item(bytes: &[u8]) -> Option<Item> {
    let attrs = Attrs(bytes);
    let value_of = |kind| Some(Box::from(attrs.nested(kind)?.get(elem::DATA_VALUE)?));
    let key = value_of(elem::KEY)?;
    let value = match attrs.nested(elem::DATA) {
        None => None,
        Some(data) => match data.nested(elem::DATA_VERDICT) {
            Some(verdict) => Some(MapValue::Verdict(read_verdict(&verdict)?)),
            None => {
                let bytes = data.get(elem::DATA_VALUE)?;
                Some(MapValue::Data(Element::from_bytes(Box::from(bytes), None)))
            }
        },
    };
    let closes = attrs.be32(elem::FLAGS).unwrap_or(0) & elem::INTERVAL_END != 0;
    Some(Item { key, end: value_of(elem::KEY_END), closes, value })
}

fn read_verdict(attrs: &Attrs<'_>) -> Option<Verdict> {
    let code = i32::from_be_bytes(fixed(attrs.get(elem::VERDICT_CODE)?, 0)?);
    let chain = || attrs.string(elem::VERDICT_CHAIN).map(ChainName::new);
    Some(match code {
        verdict::ACCEPT => Verdict::Accept,
        verdict::DROP => Verdict::Drop,
        verdict::RETURN => Verdict::Return,
        verdict::CONTINUE => Verdict::Continue,
        verdict::JUMP => Verdict::Jump(chain()?),
        verdict::GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}

fn add_definition(actual: &mut Actual, of: Definition, items: Vec<Item>) {
    let interval = of.flags & set::INTERVAL != 0;
    match of.data {
        None => {
            let elements = if interval && of.key.len() == 1 {
                ranges(items)
            } else {
                items.into_iter().map(|item| Element::from_bytes(item.key, item.end)).collect()
            };
            let name = SetName::new(&of.name);
            actual.sets.insert(name.clone(), Set { name, key: of.key, interval, elements });
        }
        Some(data) => {
            let member = |item: Item| Some((Element::from_bytes(item.key, item.end), item.value?));
            let elements = items.into_iter().filter_map(member).collect();
            let name = MapName::new(&of.name);
            // Ours never have intervals.
            let key = if interval { Vec::new() } else { of.key };
            actual.maps.insert(name.clone(), Map { name, key, data, elements });
        }
    }
}

/// Joins starts and exclusive ends to inclusive ranges.
fn ranges(mut items: Vec<Item>) -> BTreeSet<Element> {
    // Where one range ends and the next begins at once, the end comes first.
    items.sort_by(|a, b| a.key.cmp(&b.key).then(b.closes.cmp(&a.closes)));
    let mut ranges = BTreeSet::new();
    let mut open: Option<Box<[u8]>> = None;
    for item in items {
        if let Some(start) = open.take() {
            let end = predecessor(&item.key).map(Vec::into_boxed_slice);
            ranges.insert(Element::from_bytes(start, end));
        }
        if !item.closes {
            open = Some(item.key);
        }
    }
    if let Some(start) = open {
        let last = vec![u8::MAX; start.len()].into_boxed_slice();
        ranges.insert(Element::from_bytes(start, Some(last)));
    }
    ranges
}
