//! A planned transaction as one nfnetlink batch.

use super::{
    expr::{AnonymousId, Exprs, data_value, data_verdict, fields_len, key_types},
    uapi::{self, elem, flag, msg, rule, set},
    wire::Writer,
};
use crate::nft::{
    Base, Batch, Chain, ChainKind, Element, Expr, Field, Fingerprint, Hook, KeyType, MapData,
    MapValue, Match, Op, Operand, Policy, Rule, Shape, Verdict, element::key_len,
};

/// An element list is one attribute, whose length has sixteen bits.
const LIST_LIMIT: usize = 60 * 1024;
/// Octets of userdata a rule may carry: comment with its NUL, fingerprint, and their headers stay below 256.
const COMMENT_LIMIT: usize = 127;

/// A batch ready to send.
#[derive(Debug)]
pub struct Encoded {
    pub(super) bytes: Vec<u8>,
    first_seq: u32,
    /// For every message of the batch: which step it came from, and which part of that step.
    origins: Vec<(usize, usize)>,
}

impl Encoded {
    /// Number of messages, with the two that frame the batch.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.origins.len() + 2
    }

    /// Octets on the socket.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is to be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Sequence number of the frame, then of each message.
    pub(super) const fn first_seq(&self) -> u32 {
        self.first_seq
    }

    /// Sequence number of the message that asks for the acknowledgement.
    pub(super) fn last_seq(&self) -> u32 {
        self.first_seq.wrapping_add(u32::try_from(self.origins.len()).unwrap_or(0))
    }

    /// The step, and its part, that a sequence number belongs to; `None` for the frame.
    pub(super) fn origin(&self, seq: u32) -> Option<(usize, usize)> {
        let index = seq.wrapping_sub(self.first_seq).checked_sub(1)?;
        self.origins.get(usize::try_from(index).ok()?).copied()
    }
}

/// Encodes a batch for a generation; messages are numbered from `first_seq`.
#[must_use]
pub fn encode(batch: &Batch, generation: u32, first_seq: u32) -> Encoded {
    let mut encoder = Encoder {
        out: Writer::default(),
        table: &batch.table,
        first_seq,
        origins: Vec::new(),
        origin: (0, 0),
        next_set_id: 0,
    };
    encoder.out.begin(uapi::BATCH_BEGIN, flag::REQUEST, first_seq, 0, uapi::SUBSYSTEM);
    encoder.out.be32(uapi::BATCH_GENID, generation);
    encoder.out.end();
    for (index, op) in batch.ops.iter().enumerate() {
        encoder.origin = (index, 0);
        encoder.op(op);
    }
    // Acknowledging only the last message keeps a big batch from overflowing our receive buffer: the kernel would
    // commit it and still report ENOBUFS.
    encoder.out.add_flags(flag::ACK);
    let last = encoder.seq();
    encoder.out.begin(uapi::BATCH_END, flag::REQUEST, last, 0, uapi::SUBSYSTEM);
    encoder.out.end();
    Encoded { bytes: encoder.out.buf, first_seq, origins: encoder.origins }
}

struct Encoder<'a> {
    out: Writer,
    table: &'a str,
    first_seq: u32,
    origins: Vec<(usize, usize)>,
    origin: (usize, usize),
    next_set_id: u32,
}

/// How elements of a set or map are written.
#[derive(Clone, Copy)]
struct Style<'a> {
    key: &'a [KeyType],
    interval: bool,
}

/// What a message about set elements refers to.
#[derive(Clone, Copy)]
enum Target<'a> {
    Named(&'a str),
    Anonymous(&'a str, u32),
}

impl Encoder<'_> {
    fn seq(&self) -> u32 {
        let done = u32::try_from(self.origins.len()).unwrap_or(u32::MAX);
        self.first_seq.wrapping_add(done).wrapping_add(1)
    }

    fn begin(&mut self, kind: u8, flags: u16) {
        let seq = self.seq();
        self.origins.push(self.origin);
        self.out.begin_nft(kind, flag::REQUEST | flags, seq);
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::AddTable => {
                self.begin(msg::NEWTABLE, flag::CREATE);
                // Neither OWNER nor PERSIST: an owned table would survive `nft flush ruleset`, but an operator could
                // no longer remove it in an emergency, and before Linux 6.9 it would vanish with our process, leaving
                // every pod open. What others remove is written again by drift repair.
                self.out.string(uapi::table::NAME, self.table);
                self.out.end();
            }
            Op::FlushChain(name) => {
                self.begin(msg::DELRULE, 0);
                self.out.string(rule::TABLE, self.table);
                self.out.string(rule::CHAIN, name.as_str());
                self.out.end();
            }
            Op::AddChain(name, base) => self.add_chain(name.as_str(), base.as_ref()),
            Op::DeleteChain(name) => {
                self.begin(msg::DELCHAIN, 0);
                self.out.string(uapi::chain::TABLE, self.table);
                self.out.string(uapi::chain::NAME, name.as_str());
                self.out.end();
            }
            Op::AddRules(chain) => self.add_rules(chain),
            Op::AddSet(name, shape) => {
                self.add_set(name.as_str(), shape, None, 0);
            }
            Op::AddMap(name, key, data) => {
                let shape = Shape { key: key.clone(), interval: false };
                self.add_set(name.as_str(), &shape, Some(data), 0);
            }
            Op::DeleteSet(name) => self.delete_set(name.as_str()),
            Op::DeleteMap(name) => self.delete_set(name.as_str()),
            Op::AddElements(name, shape, members) => {
                let members = members.iter().map(|element| (element, None));
                let target = Target::Named(name.as_str());
                self.elements(msg::NEWSETELEM, target, style(shape), members);
            }
            Op::DeleteElements(name, shape, members) => {
                let members = members.iter().map(|element| (element, None));
                let target = Target::Named(name.as_str());
                self.elements(msg::DELSETELEM, target, style(shape), members);
            }
            Op::AddMapElements(name, key, _, members) => {
                let members = members.iter().map(|(element, value)| (element, Some(value)));
                let target = Target::Named(name.as_str());
                self.elements(msg::NEWSETELEM, target, Style { key, interval: false }, members);
            }
            Op::DeleteMapElements(name, key, members) => {
                let members = members.iter().map(|element| (element, None));
                let target = Target::Named(name.as_str());
                self.elements(msg::DELSETELEM, target, Style { key, interval: false }, members);
            }
        }
    }

    fn add_chain(&mut self, name: &str, base: Option<&Base>) {
        self.begin(msg::NEWCHAIN, flag::CREATE);
        self.out.string(uapi::chain::TABLE, self.table);
        self.out.string(uapi::chain::NAME, name);
        if let Some(base) = base {
            let hook = self.out.open(uapi::chain::HOOK);
            self.out.be32(uapi::chain::HOOK_NUM, hook_number(base.hook));
            self.out.attr(uapi::chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
            self.out.close(hook);
            let policy = match base.policy {
                Policy::Drop => 0,
                Policy::Accept => 1,
            };
            self.out.be32(uapi::chain::POLICY, policy);
            self.out.string(uapi::chain::TYPE, kind_name(base.kind));
        }
        self.out.end();
    }

    fn add_rules(&mut self, chain: &Chain) {
        for (index, each) in chain.rules.iter().enumerate() {
            self.origin.1 = index;
            let ids = self.anonymous_sets(each);
            self.begin(msg::NEWRULE, flag::CREATE | flag::APPEND);
            self.out.string(rule::TABLE, self.table);
            self.out.string(rule::CHAIN, chain.name.as_str());
            let list = self.out.open(rule::EXPRESSIONS);
            let mut exprs = Exprs::new(&mut self.out, ids.into_iter());
            for expr in &each.exprs {
                exprs.write(expr);
            }
            if let Some(verdict) = &each.verdict {
                exprs.verdict(verdict);
            }
            self.out.close(list);
            self.out.attr(rule::USERDATA, &userdata(each));
            self.out.end();
        }
    }

    /// Makes the anonymous sets and maps of a rule; gives their ids in order.
    fn anonymous_sets(&mut self, each: &Rule) -> Vec<AnonymousId> {
        let mut ids = Vec::new();
        for expr in &each.exprs {
            match expr {
                Expr::Match(Match { fields, operand: Operand::OneOf(members), .. }) => {
                    ids.push(self.anonymous_set(fields, members));
                }
                Expr::AnonymousVmap(fields, entries) => {
                    ids.push(self.anonymous_map(fields, entries));
                }
                _ => {}
            }
        }
        ids
    }

    fn anonymous_set(&mut self, fields: &[Field], members: &[Element]) -> AnonymousId {
        let members = merged(members, fields_len(fields), fields.len() == 1);
        let interval = members.iter().any(|element| element.end().is_some());
        let shape = Shape { key: key_types(fields), interval };
        let id = self.add_set("__set%d", &shape, None, set::ANONYMOUS | set::CONSTANT);
        let target = Target::Anonymous("__set%d", id);
        let members = members.iter().map(|element| (element, None));
        self.elements(msg::NEWSETELEM, target, style(&shape), members);
        AnonymousId(id)
    }

    fn anonymous_map(&mut self, fields: &[Field], entries: &[(Element, Verdict)]) -> AnonymousId {
        let shape = Shape { key: key_types(fields), interval: false };
        let flags = set::ANONYMOUS | set::CONSTANT;
        let id = self.add_set("__map%d", &shape, Some(&MapData::Verdict), flags);
        let target = Target::Anonymous("__map%d", id);
        let entries: Vec<(&Element, MapValue)> =
            entries.iter().map(|(key, to)| (key, to.clone().into())).collect();
        let members = entries.iter().map(|(key, value)| (*key, Some(value)));
        self.elements(msg::NEWSETELEM, target, style(&shape), members);
        AnonymousId(id)
    }

    fn add_set(&mut self, name: &str, shape: &Shape, data: Option<&MapData>, extra: u32) -> u32 {
        self.next_set_id += 1;
        let id = self.next_set_id;
        let concat = shape.key.len() > 1;
        let mut flags = extra;
        if shape.interval {
            flags |= set::INTERVAL | if concat { set::CONCAT } else { 0 };
        }
        if data.is_some() {
            flags |= set::MAP;
        }
        self.begin(msg::NEWSET, flag::CREATE);
        self.out.string(set::TABLE, self.table);
        self.out.string(set::NAME, name);
        self.out.be32(set::FLAGS, flags);
        self.out.be32(set::KEY_TYPE, type_id(&shape.key));
        self.out.be32(set::KEY_LEN, u32::try_from(key_len(&shape.key)).unwrap_or(u32::MAX));
        match data {
            None => {}
            Some(MapData::Verdict) => self.out.be32(set::DATA_TYPE, set::VERDICT_TYPE),
            Some(MapData::Values(kinds)) => {
                self.out.be32(set::DATA_TYPE, type_id(kinds));
                self.out.be32(set::DATA_LEN, u32::try_from(key_len(kinds)).unwrap_or(u32::MAX));
            }
        }
        self.out.be32(set::ID, id);
        if concat && shape.interval {
            let desc = self.out.open(set::DESC);
            let list = self.out.open(set::DESC_CONCAT);
            for kind in &shape.key {
                let field = self.out.open(elem::LIST_ITEM);
                self.out.be32(set::FIELD_LEN, u32::try_from(kind.octets()).unwrap_or(u32::MAX));
                self.out.close(field);
            }
            self.out.close(list);
            self.out.close(desc);
        }
        let mut userdata = udata(set::UDATA_KEY_BYTEORDER, byte_order(&shape.key));
        if let Some(MapData::Values(kinds)) = data {
            userdata.extend(udata(set::UDATA_DATA_BYTEORDER, byte_order(kinds)));
        }
        self.out.attr(set::USERDATA, &userdata);
        self.out.end();
        id
    }

    fn delete_set(&mut self, name: &str) {
        self.begin(msg::DELSET, 0);
        self.out.string(set::TABLE, self.table);
        self.out.string(set::NAME, name);
        self.out.end();
    }

    fn elements<'e>(
        &mut self,
        kind: u8,
        target: Target<'_>,
        style: Style<'_>,
        members: impl Iterator<Item = (&'e Element, Option<&'e MapValue>)>,
    ) {
        let mut list = None;
        for (element, value) in members {
            let open = match list.take() {
                Some(open) => open,
                None => self.begin_elements(kind, target),
            };
            write_element(&mut self.out, style, element, value);
            if self.out.len_since(&open) > LIST_LIMIT {
                self.out.close(open);
                self.out.end();
                self.origin.1 += 1;
            } else {
                list = Some(open);
            }
        }
        if let Some(open) = list {
            self.out.close(open);
            self.out.end();
        }
    }

    fn begin_elements(&mut self, kind: u8, target: Target<'_>) -> super::wire::Open {
        let flags = if kind == msg::NEWSETELEM { flag::CREATE } else { 0 };
        self.begin(kind, flags);
        self.out.string(elem::LIST_TABLE, self.table);
        match target {
            Target::Named(name) => self.out.string(elem::LIST_SET, name),
            Target::Anonymous(name, id) => {
                self.out.string(elem::LIST_SET, name);
                self.out.be32(elem::LIST_SET_ID, id);
            }
        }
        self.out.open(elem::LIST_ELEMENTS)
    }
}

const fn style(shape: &Shape) -> Style<'_> {
    Style { key: shape.key.as_slice(), interval: shape.interval }
}

fn write_element(out: &mut Writer, style: Style<'_>, element: &Element, value: Option<&MapValue>) {
    let concat = style.key.len() > 1;
    let item = out.open(elem::LIST_ITEM);
    data_value(out, elem::KEY, element.start());
    if style.interval && concat {
        data_value(out, elem::KEY_END, element.end().unwrap_or_else(|| element.start()));
    }
    match value {
        None => {}
        Some(MapValue::Verdict(verdict)) => data_verdict(out, elem::DATA, verdict),
        Some(MapValue::Data(data)) => data_value(out, elem::DATA, data.start()),
    }
    out.close(item);
    // A range of a single field is two elements: its start, and the first key after its end. A range that reaches the
    // last key there is has no end element.
    if style.interval
        && !concat
        && let Some(after) = successor(element.end().unwrap_or_else(|| element.start()))
    {
        let item = out.open(elem::LIST_ITEM);
        data_value(out, elem::KEY, &after);
        out.be32(elem::FLAGS, elem::INTERVAL_END);
        out.close(item);
    }
}

/// The next key in byte order; `None` after the last.
pub(super) fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

/// The key before in byte order; `None` before the first.
pub(super) fn predecessor(key: &[u8]) -> Option<Vec<u8>> {
    let mut previous = key.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrowed) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrowed {
            return Some(previous);
        }
    }
    None
}

/// Members of an anonymous set without repetition; ranges of a single field that overlap or touch become one, since
/// the kernel refuses overlaps and users write `80, 70:90`.
fn merged(members: &[Element], len: usize, single: bool) -> Vec<Element> {
    let mut sorted: Vec<&Element> = members.iter().filter(|m| m.start().len() == len).collect();
    sorted.sort_by(|a, b| a.start().cmp(b.start()).then(b.end().cmp(&a.end())));
    sorted.dedup();
    if !single || sorted.iter().all(|element| element.end().is_none()) {
        return sorted.into_iter().cloned().collect();
    }
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for element in sorted {
        let start = element.start().to_vec();
        let end = element.end().unwrap_or_else(|| element.start()).to_vec();
        match ranges.last_mut() {
            Some((_, last)) if successor(last).is_none_or(|after| start <= after) => {
                if end > *last {
                    *last = end;
                }
            }
            _ => ranges.push((start, end)),
        }
    }
    let element =
        |(start, end): (Vec<u8>, Vec<u8>)| Element::from_bytes(start.into(), Some(end.into()));
    ranges.into_iter().map(element).collect()
}

fn userdata(each: &Rule) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(comment) = each.comment.as_deref().filter(|comment| !comment.is_empty()) {
        let text: String = comment.chars().filter(char::is_ascii).take(COMMENT_LIMIT).collect();
        let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
        out.extend_from_slice(&[rule::UDATA_COMMENT, len]);
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
    out.extend_from_slice(&[rule::UDATA_FINGERPRINT, 8]);
    out.extend_from_slice(&Fingerprint::of(each).0.to_be_bytes());
    out
}

fn udata(kind: u8, number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_ne_bytes();
    vec![kind, 4, a, b, c, d]
}

/// nft's byte order of a type: 1 host, 2 network.
fn byte_order(kinds: &[KeyType]) -> u32 {
    let host = |kind: &KeyType| {
        matches!(kind, KeyType::Ifname | KeyType::Mark | KeyType::CtState | KeyType::Number)
    };
    match kinds {
        [kind] if host(kind) => 1,
        [_] => 2,
        _ => 0,
    }
}

/// nft's number of a type (`enum datatypes`); parts of a concatenation have six bits each.
pub(super) fn type_id(kinds: &[KeyType]) -> u32 {
    kinds.iter().fold(0, |id, kind| (id << 6) | type_number(*kind))
}

const fn type_number(kind: KeyType) -> u32 {
    match kind {
        KeyType::Ipv4 => 7,
        KeyType::Ipv6 => 8,
        KeyType::L4Proto => 12,
        KeyType::Port => 13,
        KeyType::IcmpType => 14,
        KeyType::Mark => 19,
        KeyType::CtState => 26,
        KeyType::Icmpv6Type => 29,
        KeyType::Ifname => 41,
        // TYPE_INTEGER: nft has no name for it in a declaration, and lists it as a number.
        KeyType::Number => 4,
    }
}

/// The types behind nft's number; empty when one of them isn't ours.
pub(super) fn types_of_id(id: u32) -> Vec<KeyType> {
    const ALL: [KeyType; 10] = [
        KeyType::Ipv4,
        KeyType::Ipv6,
        KeyType::L4Proto,
        KeyType::Port,
        KeyType::IcmpType,
        KeyType::Mark,
        KeyType::CtState,
        KeyType::Icmpv6Type,
        KeyType::Ifname,
        KeyType::Number,
    ];
    let mut kinds = Vec::new();
    let mut rest = id;
    while rest != 0 {
        match ALL.into_iter().find(|kind| type_number(*kind) == rest & 0x3f) {
            Some(kind) => kinds.push(kind),
            None => return Vec::new(),
        }
        rest >>= 6;
    }
    kinds.reverse();
    kinds
}

const HOOKS: [(Hook, u32); 5] = [
    (Hook::Prerouting, 0),
    (Hook::Input, 1),
    (Hook::Forward, 2),
    (Hook::Output, 3),
    (Hook::Postrouting, 4),
];

fn hook_number(hook: Hook) -> u32 {
    HOOKS.iter().find(|(each, _)| *each == hook).map_or(0, |(_, number)| *number)
}

/// The hook behind a number of the inet family.
pub(super) fn hook_of_number(number: u32) -> Option<Hook> {
    HOOKS.iter().find(|(_, each)| *each == number).map(|(hook, _)| *hook)
}

const fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

/// The chain kind behind a name.
pub(super) fn kind_of_name(name: &str) -> Option<ChainKind> {
    [ChainKind::Filter, ChainKind::Nat, ChainKind::Route]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}
