//! Expressions of a rule, as the kernel's small register machine wants them.

use std::net::IpAddr;

use super::{uapi::elem, wire::Writer};
use crate::nft::{
    Expr, Family, Field, KeyType, Limit, Log, Match, Operand, RateUnit, Reject, Source, Test,
    Value, Verdict, element::key_len,
};

/// Where verdicts go.
const REG_VERDICT: u32 = 0;
/// The first data register, sixteen octets; the same memory as the first of the 32-bit registers.
const REG_1: u32 = 1;
/// The first 32-bit register.
const REG32: u32 = 8;

const CMP_EQ: u32 = 0;
const CMP_NE: u32 = 1;

/// An anonymous set or map that a rule needs, by its place in the rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnonymousId(pub(super) u32);

/// What the rule has tested so far, so that no test is made twice.
#[derive(Default)]
struct Known {
    family: Option<u8>,
    l4proto: Option<u8>,
}

/// Writes the expressions of a rule; `anonymous` gives the ids of its anonymous sets, in order.
pub(super) struct Exprs<'w, I> {
    out: &'w mut Writer,
    anonymous: I,
    known: Known,
}

impl<'w, I: Iterator<Item = AnonymousId>> Exprs<'w, I> {
    pub(super) fn new(out: &'w mut Writer, anonymous: I) -> Self {
        Self { out, anonymous, known: Known::default() }
    }

    fn expr(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        let item = self.out.open(elem::LIST_ITEM);
        self.out.string(1, name);
        let open = self.out.open(2);
        data(self.out);
        self.out.close(open);
        self.out.close(item);
    }

    pub(super) fn write(&mut self, expr: &Expr) {
        match expr {
            Expr::Match(each) => self.matching(each),
            Expr::Vmap(fields, map) => {
                self.load_all(fields);
                self.lookup(map.as_str(), None, Some(REG_VERDICT), false);
            }
            Expr::AnonymousVmap(fields, _) => {
                self.load_all(fields);
                let id = self.anonymous.next();
                self.lookup("__map%d", id, Some(REG_VERDICT), false);
            }
            Expr::Counter => self.expr("counter", |out| {
                out.attr(1, &0_u64.to_be_bytes());
                out.attr(2, &0_u64.to_be_bytes());
            }),
            Expr::Log(log) => self.log(log),
            Expr::Limit(limit) => self.limit(*limit),
            Expr::Reject(reject) => self.reject(*reject),
            Expr::SetMark(source) => {
                self.source(source);
                self.set_mark();
            }
            Expr::MixMark { mask, xor } => {
                self.load(Field::Mark, REG_1);
                self.bitwise(&mask.to_ne_bytes(), &xor.to_ne_bytes());
                self.set_mark();
            }
            Expr::Dnat(family, source) => self.dnat(*family, source),
            Expr::Masquerade { random } => {
                // NF_NAT_RANGE_PROTO_RANDOM_FULLY
                let flags = if *random { 16 } else { 0 };
                self.expr("masq", |out| out.be32(1, flags));
            }
            Expr::Notrack => self.expr("notrack", |_| {}),
        }
    }

    fn matching(&mut self, each: &Match) {
        self.load_all(&each.fields);
        let is = each.test == Test::Is;
        let operator = if is { CMP_EQ } else { CMP_NE };
        match &each.operand {
            Operand::Is(value) => {
                self.cmp(operator, &value.bytes());
                self.learn(each, value);
            }
            Operand::Starts(start) => self.cmp(operator, start.as_bytes()),
            Operand::Within(net) => {
                let (mask, addr) = (addr_bytes(net.netmask()), addr_bytes(net.network()));
                self.bitwise(&mask, &vec![0; mask.len()]);
                self.cmp(operator, &addr);
            }
            Operand::Between(from, to) => {
                let (from, to) = (from.bytes(), to.bytes());
                self.expr("range", |out| {
                    out.be32(1, REG_1);
                    out.be32(2, operator);
                    data_value(out, 3, &from);
                    data_value(out, 4, &to);
                });
            }
            Operand::AnyBit(bits) => {
                self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
                self.cmp(if is { CMP_NE } else { CMP_EQ }, &[0; 4]);
            }
            Operand::Masked { mask, value } => {
                self.bitwise(&mask.to_ne_bytes(), &[0; 4]);
                self.cmp(operator, &value.to_ne_bytes());
            }
            Operand::OneOf(_) => {
                let id = self.anonymous.next();
                self.lookup("__set%d", id, None, !is);
            }
            Operand::In(set) => self.lookup(set.as_str(), None, None, !is),
        }
    }

    fn learn(&mut self, each: &Match, value: &Value) {
        let (Test::Is, Value::L4Proto(number)) = (each.test, value) else { return };
        match each.fields.as_slice() {
            [Field::NfProto] => self.known.family = Some(*number),
            [Field::L4Proto] => self.known.l4proto = Some(*number),
            _ => {}
        }
    }

    /// Tests what the fields imply, then loads them into consecutive registers.
    fn load_all(&mut self, fields: &[Field]) {
        for field in fields {
            self.imply(*field);
        }
        let mut slot = 0;
        for field in fields {
            self.load(*field, if slot == 0 { REG_1 } else { REG32 + slot });
            slot += registers(field.key_type());
        }
    }

    fn imply(&mut self, field: Field) {
        let family = match field {
            Field::Ip4Saddr | Field::Ip4Daddr => Some(2),
            Field::Ip6Saddr | Field::Ip6Daddr => Some(10),
            _ => None,
        };
        if let Some(number) = family.filter(|number| self.known.family != Some(*number)) {
            self.load(Field::NfProto, REG_1);
            self.cmp(CMP_EQ, &[number]);
            self.known.family = family;
        }
        let l4proto = match field {
            Field::IcmpType | Field::IcmpCode => Some(1),
            Field::Icmpv6Type | Field::Icmpv6Code => Some(58),
            _ => None,
        };
        if let Some(number) = l4proto.filter(|number| self.known.l4proto != Some(*number)) {
            self.load(Field::L4Proto, REG_1);
            self.cmp(CMP_EQ, &[number]);
            self.known.l4proto = l4proto;
        }
    }

    fn load(&mut self, field: Field, register: u32) {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match field {
            Field::Mark => self.meta(3, register),
            Field::IifName => self.meta(6, register),
            Field::OifName => self.meta(7, register),
            Field::NfProto => self.meta(15, register),
            Field::L4Proto => self.meta(16, register),
            Field::Ip4Saddr => self.payload(NETWORK, 12, 4, register),
            Field::Ip4Daddr => self.payload(NETWORK, 16, 4, register),
            Field::Ip6Saddr => self.payload(NETWORK, 8, 16, register),
            Field::Ip6Daddr => self.payload(NETWORK, 24, 16, register),
            Field::ThSport => self.payload(TRANSPORT, 0, 2, register),
            Field::ThDport => self.payload(TRANSPORT, 2, 2, register),
            Field::IcmpType | Field::Icmpv6Type => self.payload(TRANSPORT, 0, 1, register),
            Field::IcmpCode | Field::Icmpv6Code => self.payload(TRANSPORT, 1, 1, register),
            Field::CtState => self.conntrack(0, None, register),
            Field::CtOriginalIp4Daddr => self.conntrack(20, Some(0), register),
            Field::CtOriginalDport => self.conntrack(12, Some(0), register),
            Field::FibDaddrType => self.expr("fib", |out| {
                out.be32(1, register);
                out.be32(2, 3);
                out.be32(3, 2);
            }),
            Field::Random(modulus) => self.expr("numgen", |out| {
                out.be32(1, register);
                out.be32(2, modulus);
                out.be32(3, 1);
                out.be32(4, 0);
            }),
        }
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expr("meta", |out| {
            out.be32(2, key);
            out.be32(1, register);
        });
    }

    fn set_mark(&mut self) {
        self.expr("meta", |out| {
            out.be32(2, 3);
            out.be32(3, REG_1);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32, register: u32) {
        self.expr("payload", |out| {
            out.be32(1, register);
            out.be32(2, base);
            out.be32(3, offset);
            out.be32(4, len);
        });
    }

    fn conntrack(&mut self, key: u32, direction: Option<u8>, register: u32) {
        self.expr("ct", |out| {
            out.be32(2, key);
            out.be32(1, register);
            if let Some(direction) = direction {
                out.attr(3, &[direction]);
            }
        });
    }

    fn cmp(&mut self, operator: u32, bytes: &[u8]) {
        self.expr("cmp", |out| {
            out.be32(1, REG_1);
            out.be32(2, operator);
            data_value(out, 3, bytes);
        });
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        self.expr("bitwise", |out| {
            out.be32(1, REG_1);
            out.be32(2, REG_1);
            out.be32(3, u32::try_from(mask.len()).unwrap_or(0));
            data_value(out, 4, mask);
            data_value(out, 5, xor);
        });
    }

    fn lookup(&mut self, set: &str, id: Option<AnonymousId>, to: Option<u32>, inverted: bool) {
        self.expr("lookup", |out| {
            out.string(1, set);
            out.be32(2, REG_1);
            if let Some(register) = to {
                out.be32(3, register);
            }
            if let Some(AnonymousId(id)) = id {
                out.be32(4, id);
            }
            if inverted {
                out.be32(5, 1);
            }
        });
    }

    /// Puts a statement's argument into the first registers.
    fn source(&mut self, source: &Source) {
        match source {
            Source::Values(values) => {
                let mut slot = 0;
                for value in values {
                    let register = if slot == 0 { REG_1 } else { REG32 + slot };
                    let bytes = value.bytes();
                    self.expr("immediate", |out| {
                        out.be32(1, register);
                        data_value(out, 2, &bytes);
                    });
                    slot += registers(value.key_type());
                }
            }
            Source::Map(fields, map) => {
                self.load_all(fields);
                self.lookup(map.as_str(), None, Some(REG_1), false);
            }
        }
    }

    fn dnat(&mut self, family: Family, source: &Source) {
        // An address map always gives address and port together.
        let with_port = !matches!(source, Source::Values(values) if values.len() == 1);
        self.source(source);
        let (number, kind) = match family {
            Family::V4 => (2, KeyType::Ipv4),
            Family::V6 => (10, KeyType::Ipv6),
        };
        self.expr("nat", |out| {
            out.be32(1, 1);
            out.be32(2, number);
            out.be32(3, REG_1);
            if with_port {
                out.be32(5, REG32 + registers(kind));
            }
        });
    }

    fn log(&mut self, log: &Log) {
        let prefix: String = log.prefix.chars().filter(char::is_ascii).take(127).collect();
        self.expr("log", |out| {
            out.attr(1, &log.group.to_be_bytes());
            out.string(2, &prefix);
            out.be32(3, log.snaplen);
            out.attr(4, &log.queue_threshold.to_be_bytes());
        });
    }

    fn limit(&mut self, limit: Limit) {
        let unit: u64 = match limit.unit {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        };
        self.expr("limit", |out| {
            out.attr(1, &limit.rate.to_be_bytes());
            out.attr(2, &unit.to_be_bytes());
            out.be32(3, limit.burst);
            out.be32(4, 0);
            out.be32(5, u32::from(limit.over));
        });
    }

    fn reject(&mut self, reject: Reject) {
        let (kind, code): (u32, Option<u8>) = match reject {
            Reject::TcpReset => (1, None),
            Reject::PortUnreachable => (2, Some(1)),
            Reject::AdminProhibited => (2, Some(3)),
        };
        self.expr("reject", |out| {
            out.be32(1, kind);
            if let Some(code) = code {
                out.attr(2, &[code]);
            }
        });
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        self.expr("immediate", |out| {
            out.be32(1, REG_VERDICT);
            data_verdict(out, 2, verdict);
        });
    }
}

/// 32-bit registers that a value of a type fills.
const fn registers(kind: KeyType) -> u32 {
    match kind {
        KeyType::Ifname | KeyType::Ipv6 => 4,
        _ => 1,
    }
}

/// Octets of the key of these fields.
pub(super) fn fields_len(fields: &[Field]) -> usize {
    key_len(&key_types(fields))
}

/// Types of these fields.
pub(super) fn key_types(fields: &[Field]) -> Vec<KeyType> {
    fields.iter().map(|field| field.key_type()).collect()
}

fn addr_bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// `NFTA_DATA_VALUE` in an attribute.
pub(super) fn data_value(out: &mut Writer, kind: u16, bytes: &[u8]) {
    let open = out.open(kind);
    out.attr(elem::DATA_VALUE, bytes);
    out.close(open);
}

/// `NFTA_DATA_VERDICT` in an attribute.
pub(super) fn data_verdict(out: &mut Writer, kind: u16, verdict: &Verdict) {
    use super::uapi::verdict::{ACCEPT, CONTINUE, DROP, GOTO, JUMP, RETURN};
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Return => (RETURN, None),
        Verdict::Continue => (CONTINUE, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
    };
    let data = out.open(kind);
    let open = out.open(elem::DATA_VERDICT);
    out.attr(elem::VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        out.string(elem::VERDICT_CHAIN, chain.as_str());
    }
    out.close(open);
    out.close(data);
}
