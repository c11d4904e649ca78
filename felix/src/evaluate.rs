//! What policy does with one flow, and why: the same model as the kernel gets, run by hand.
//!
//! Shares the parsed policies with the renderer and nothing else: no sets, no indexes. That makes it the oracle that
//! the rendered table is tested against, and the code behind `policy explain`.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use api::Key;

use crate::{
    calc::{
        catalog::Catalog,
        item::{Item, ItemId},
        model::{
            Action, Direction, Entity, Icmp, Peers, Policy, PolicyId, Ports, Rule, protocol_name,
        },
        problem::Problem,
    },
    nft::Family,
    update::Update,
};

/// All objects, ready to be asked about flows. Every pod counts, not only those of one node.
#[derive(Debug, Default)]
pub struct Model {
    catalog: Catalog,
}

/// One end of a flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Party {
    /// A pod, by namespace and name.
    Pod(Key),
    /// An address; if a pod holds it, it is that pod.
    Address(IpAddr),
}

/// The first packet of a flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    /// Sender.
    pub source: Party,
    /// Receiver.
    pub destination: Party,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; unknown ones only match rules that don't ask.
    pub source_port: Option<u16>,
    /// Destination port, for protocols with ports.
    pub destination_port: Option<u16>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

/// The verdict on a flow, with the way to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Whether both directions let it through.
    pub allowed: bool,
    /// What the sender's policies say.
    pub egress: Trail,
    /// What the receiver's policies say.
    pub ingress: Trail,
}

/// The verdict of one side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trail {
    /// Which side.
    pub direction: Direction,
    /// The pod whose policies were asked; `None` for addresses outside.
    pub endpoint: Option<Key>,
    /// Whether this side lets it through.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// Policies in the order they were asked.
    pub steps: Vec<Step>,
}

/// What decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The address is no pod's: nothing to enforce on this side.
    NotAPod,
    /// A pod always reaches itself.
    Itself,
    /// No policy selects the pod in this direction.
    NotIsolated,
    /// A rule.
    Rule(PolicyId, String, Action),
    /// The end of a tier that denies what its policies did not decide.
    EndOfTier(String),
    /// All tiers passed the flow on.
    PassedByAllTiers,
    /// The pods share no address family, or the pod has no address.
    NoAddress,
}

/// One policy that was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its tier.
    pub tier: String,
    /// Which policy.
    pub policy: PolicyId,
    /// Its rules in order, up to the one that decided.
    pub rules: Vec<RuleStep>,
}

/// One rule that was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleStep {
    /// Position among the parsed rules.
    pub index: usize,
    /// Where it is in the object.
    pub origin: String,
    /// What it does on a match.
    pub action: Action,
    /// `None` when it matched, otherwise the first condition that did not hold.
    pub missed: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("not a pod, nothing to enforce"),
            Self::Itself => f.write_str("a pod always reaches itself"),
            Self::NotIsolated => f.write_str("no policy selects the pod in this direction"),
            Self::Rule(policy, origin, action) => write!(f, "{policy} {origin}: {action}"),
            Self::EndOfTier(tier) => {
                write!(f, "no rule matched; end of tier {tier} denies")
            }
            Self::PassedByAllTiers => f.write_str("no tier decided"),
            Self::NoAddress => f.write_str("the two ends have no address of one family"),
        }
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        write!(f, "{}", self.direction)?;
        if let Some(pod) = &self.endpoint {
            write!(f, " of {pod}")?;
        }
        writeln!(f, ": {verdict} ({})", self.reason)?;
        for step in &self.steps {
            writeln!(f, "  tier {}: {}", step.tier, step.policy)?;
            for rule in &step.rules {
                let outcome = rule.missed.as_deref().unwrap_or("matches");
                writeln!(f, "    {} {}: {outcome}", rule.origin, rule.action)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.allowed { "allowed" } else { "denied" })?;
        write!(f, "{}{}", self.egress, self.ingress)
    }
}

/// A flow with addresses instead of names.
struct Packet<'a> {
    source: End<'a>,
    destination: End<'a>,
    flow: &'a Flow,
}

/// One end, with everything that owns its address.
struct End<'a> {
    addr: IpAddr,
    pod: Option<&'a Item>,
    items: Vec<&'a Item>,
    port: Option<u16>,
}

impl Model {
    /// A model of these objects.
    pub fn from_updates(updates: impl IntoIterator<Item = Update>) -> Self {
        let mut model = Self::default();
        for update in updates {
            model.apply(update);
        }
        model
    }

    /// Takes one more update.
    pub fn apply(&mut self, update: Update) {
        self.catalog.apply(&update);
    }

    /// The objects, parsed.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What could not be understood.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.catalog.problems()
    }

    /// The policies that select a pod in a direction, in the order they are asked.
    #[must_use]
    pub fn policies_of(&self, pod: &Key, direction: Direction) -> Vec<PolicyId> {
        let Some(item) = self.catalog.item(&ItemId::Pod(pod.clone())) else { return Vec::new() };
        let tiers = self.catalog.tiers_for(self.selecting(item, direction), direction);
        tiers.into_iter().flat_map(|tier| tier.policies).collect()
    }

    /// Decides a flow.
    #[must_use]
    pub fn evaluate(&self, flow: &Flow) -> Decision {
        let Some((source, destination)) = self.ends(flow) else {
            let side = |direction| Trail {
                direction,
                endpoint: None,
                allowed: false,
                reason: Reason::NoAddress,
                steps: Vec::new(),
            };
            return Decision {
                allowed: false,
                egress: side(Direction::Egress),
                ingress: side(Direction::Ingress),
            };
        };
        let packet = Packet { source, destination, flow };
        let egress = self.side(&packet, Direction::Egress);
        let ingress = self.side(&packet, Direction::Ingress);
        Decision { allowed: egress.allowed && ingress.allowed, egress, ingress }
    }

    /// Chooses addresses of one family for both ends.
    fn ends<'a>(&'a self, flow: &Flow) -> Option<(End<'a>, End<'a>)> {
        let sources = self.addresses(&flow.source);
        let destinations = self.addresses(&flow.destination);
        let (source, destination) = sources.iter().find_map(|source| {
            let same = destinations.iter().find(|addr| addr.is_ipv4() == source.is_ipv4())?;
            Some((*source, *same))
        })?;
        Some((
            self.end(&flow.source, source, flow.source_port),
            self.end(&flow.destination, destination, flow.destination_port),
        ))
    }

    fn addresses(&self, party: &Party) -> Vec<IpAddr> {
        match party {
            Party::Address(addr) => vec![*addr],
            Party::Pod(key) => self
                .catalog
                .item(&ItemId::Pod(key.clone()))
                .map(|item| item.addresses.clone())
                .unwrap_or_default(),
        }
    }

    fn end(&self, party: &Party, addr: IpAddr, port: Option<u16>) -> End<'_> {
        let items: Vec<&Item> = self.catalog.items().filter(|item| item.owns(addr)).collect();
        let named = match party {
            Party::Pod(key) => self.catalog.item(&ItemId::Pod(key.clone())),
            Party::Address(_) => None,
        };
        let pod = named.or_else(|| items.iter().copied().find(|item| item.is_pod()));
        End { addr, pod, items, port }
    }

    fn selecting(&self, item: &Item, direction: Direction) -> Vec<PolicyId> {
        let selects =
            |policy: &&Policy| policy.rules(direction).is_some() && policy.subject.matches(item);
        self.catalog.policies().filter(selects).map(|policy| policy.id.clone()).collect()
    }

    fn side(&self, packet: &Packet<'_>, direction: Direction) -> Trail {
        let item = match direction {
            Direction::Egress => packet.source.pod,
            Direction::Ingress => packet.destination.pod,
        };
        let mut trail = Trail {
            direction,
            endpoint: item.map(|item| item.id.key().clone()),
            allowed: true,
            reason: Reason::NotAPod,
            steps: Vec::new(),
        };
        let Some(item) = item else { return trail };
        if packet.source.pod.map(|pod| &pod.id) == packet.destination.pod.map(|pod| &pod.id) {
            trail.reason = Reason::Itself;
            return trail;
        }
        let tiers = self.catalog.tiers_for(self.selecting(item, direction), direction);
        trail.reason =
            if tiers.is_empty() { Reason::NotIsolated } else { Reason::PassedByAllTiers };
        for tier in tiers {
            match self.ask_tier(&tier.name, &tier.policies, packet, direction, &mut trail.steps) {
                Some((id, origin, action)) if action != Action::Pass => {
                    trail.allowed = action == Action::Allow;
                    trail.reason = Reason::Rule(id, origin, action);
                    return trail;
                }
                None if !tier.pass_by_default => {
                    trail.allowed = false;
                    trail.reason = Reason::EndOfTier(tier.name);
                    return trail;
                }
                Some(_) | None => {}
            }
        }
        trail
    }

    /// Asks the policies of one tier; returns the rule that ended it.
    fn ask_tier(
        &self,
        tier: &str,
        policies: &[PolicyId],
        packet: &Packet<'_>,
        direction: Direction,
        steps: &mut Vec<Step>,
    ) -> Option<(PolicyId, String, Action)> {
        for id in policies {
            let Some(rules) = self.catalog.policy(id).and_then(|policy| policy.rules(direction))
            else {
                continue;
            };
            let mut step = Step { tier: tier.to_owned(), policy: id.clone(), rules: Vec::new() };
            let mut ended = None;
            for (index, rule) in rules.iter().enumerate() {
                let missed = self.match_rule(rule, packet).err();
                let matched = missed.is_none();
                let origin = rule.origin.clone();
                step.rules.push(RuleStep { index, origin, action: rule.action, missed });
                if matched && rule.action != Action::Log {
                    ended = Some((id.clone(), rule.origin.clone(), rule.action));
                    break;
                }
            }
            steps.push(step);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn match_rule(&self, rule: &Rule, packet: &Packet<'_>) -> Result<(), String> {
        let protocol = packet.flow.protocol;
        let v4 = packet.source.addr.is_ipv4();
        if let Some(family) = rule.family
            && (family == Family::V4) != v4
        {
            return Err("other IP version".to_owned());
        }
        if let Some(wanted) = rule.protocol
            && wanted != protocol
        {
            return Err(format!("protocol is not {}", protocol_name(wanted)));
        }
        if let Some(unwanted) = rule.not_protocol
            && unwanted == protocol
        {
            return Err(format!("protocol is {}", protocol_name(unwanted)));
        }
        if let Some(icmp) = rule.icmp
            && !icmp_matches(icmp, packet.flow)
        {
            return Err("other ICMP message".to_owned());
        }
        if let Some(icmp) = rule.not_icmp
            && icmp_matches(icmp, packet.flow)
        {
            return Err("excluded ICMP message".to_owned());
        }
        self.match_entity(&rule.source, &packet.source, protocol)
            .map_err(|why| format!("source {why}"))?;
        self.match_entity(&rule.destination, &packet.destination, protocol)
            .map_err(|why| format!("destination {why}"))
    }

    fn match_entity(&self, entity: &Entity, end: &End<'_>, protocol: u8) -> Result<(), String> {
        if let Some(peers) = &entity.peers
            && !peers_match(peers, end)
        {
            return Err(format!("{} is none of: {}", end.addr, describe_peers(peers)));
        }
        if let Some(peers) = &entity.not_peers
            && peers_match(peers, end)
        {
            return Err(format!("{} is one of: {}", end.addr, describe_peers(peers)));
        }
        if entity.nets.as_ref().is_some_and(|nets| !nets.contains(end.addr)) {
            return Err(format!("{} is in none of the nets", end.addr));
        }
        if entity.not_nets.contains(end.addr) {
            return Err(format!("{} is in notNets", end.addr));
        }
        if entity.ports.as_ref().is_some_and(|ports| !port_matches(ports, end, protocol)) {
            return Err(format!("port {} is not listed", show_port(end.port)));
        }
        if entity.not_ports.as_ref().is_some_and(|ports| port_matches(ports, end, protocol)) {
            return Err(format!("port {} is in notPorts", show_port(end.port)));
        }
        if let Some(wanted) = &entity.service {
            let backends = self.catalog.backends(&wanted.service);
            let found = backends.into_iter().any(|backend| {
                backend.addr == end.addr
                    && (!wanted.ports
                        || (backend.protocol == protocol && Some(backend.port) == end.port))
            });
            if !found {
                return Err(format!("{} is no backend of {}", end.addr, wanted.service));
            }
        }
        Ok(())
    }
}

fn show_port(port: Option<u16>) -> String {
    port.map_or_else(|| "(unknown)".to_owned(), |port| port.to_string())
}

fn icmp_matches(wanted: Icmp, flow: &Flow) -> bool {
    let protocol = if wanted.v6 { 58 } else { 1 };
    flow.protocol == protocol
        && flow.icmp.is_some_and(|(kind, code)| {
            kind == wanted.kind && wanted.code.is_none_or(|wanted| wanted == code)
        })
}

fn peers_match(peers: &Peers, end: &End<'_>) -> bool {
    peers.nets.contains(end.addr)
        || end.items.iter().any(|item| peers.selectors.iter().any(|one| one.matches(item)))
}

fn port_matches(ports: &Ports, end: &End<'_>, protocol: u8) -> bool {
    let Some(port) = end.port else { return false };
    ports.holds_number(port)
        || ports
            .named
            .iter()
            .any(|name| end.items.iter().any(|item| item.has_port(name, protocol, port)))
}

fn describe_peers(peers: &Peers) -> String {
    let mut parts: Vec<String> =
        peers.selectors.iter().map(|selector| selector.text().to_owned()).collect();
    parts.extend(peers.nets.v4().map(|(from, to)| format!("{from}-{to}")));
    parts.extend(peers.nets.v6().map(|(from, to)| format!("{from}-{to}")));
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

/// How many policies there are of each kind; what `voilectl` prints above an explanation.
#[must_use]
pub fn policy_counts(model: &Model) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for policy in model.catalog.policies() {
        *counts.entry(policy.id.short_kind()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
