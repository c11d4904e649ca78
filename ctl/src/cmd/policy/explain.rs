//! `voilectl policy explain`: the daemons' own model run on one flow, with the way to the verdict.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Result, bail};
use api::Key;
use felix::{
    calc::{
        item::{Item, ItemId},
        model::{Action, Direction, parse_protocol, protocol_name},
    },
    evaluate::{Decision, Flow, Party, Reason, RuleStep, Step, Trail},
};
use serde_json::{Value, json};
use store::Store;

use super::{Context, World, kind_name, show::pod_key};
use crate::{cli::ExplainArgs, cmd::Outcome, output::machine};

/// One end as typed, found in the cluster.
struct End {
    party: Party,
    /// How to call it.
    name: String,
    /// What people should know about it.
    note: Option<String>,
    port: Option<u16>,
}

/// Runs the command: allowed is exit code 0, denied 1.
///
/// # Errors
/// Ends that are neither pods nor addresses, unknown protocols, and whatever the API server answers.
pub async fn explain<S: Store>(context: &Context<S>, args: &ExplainArgs) -> Result<Outcome> {
    let Some(protocol) = parse_protocol(&args.protocol) else {
        bail!("'{}' is no protocol; write TCP, UDP, SCTP, ICMP, ICMPv6 or a number", args.protocol);
    };
    let world = World::load(context).await?;
    let source = end(&world, &args.source)?;
    let destination = end(&world, &args.destination)?;
    let flow = Flow {
        source: source.party.clone(),
        destination: destination.party.clone(),
        protocol,
        source_port: source.port,
        destination_port: destination.port,
        icmp: None,
    };
    let decision = world.model.evaluate(&flow);
    let finding = !decision.allowed;
    if let Some(text) = machine(context.format, &as_json(&flow, &source, &destination, &decision))?
    {
        return Ok(Outcome { text, finding });
    }
    Ok(Outcome { text: render(&world, &flow, &source, &destination, &decision), finding })
}

/// Reads `namespace/pod[:port]`, `address`, `address:port` or `[address]:port`.
fn end(world: &World, text: &str) -> Result<End> {
    let of_address = |address: IpAddr, port| End {
        party: Party::Address(address),
        name: owner(world, address)
            .map_or_else(|| address.to_string(), |pod| format!("{address} ({pod})")),
        note: None,
        port,
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(of_address(address, None));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Ok(of_address(socket.ip(), Some(socket.port())));
    }
    let (name, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => bail!("'{port}' in '{text}' is no port; write a number from 1 to 65535"),
        },
    };
    let Ok(key) = pod_key(name) else {
        bail!("'{text}' is neither namespace/pod nor an address");
    };
    pod_end(world, &key, port)
}

fn pod_end(world: &World, key: &Key, port: Option<u16>) -> Result<End> {
    let Some(pod) = world.pods.get(key) else {
        bail!("there is no pod {key}; `voilectl get pods -A` lists them");
    };
    let status = pod.status.as_ref();
    let address =
        status.and_then(|status| status.pod_ip.as_deref()).and_then(|text| text.parse().ok());
    match (pod.spec.host_network, address) {
        (true, Some(address)) => Ok(End {
            party: Party::Address(address),
            name: format!("{key} ({address})"),
            note: Some(format!(
                "{key} runs on its node's network: policies do not select it, rules see the node's address"
            )),
            port,
        }),
        _ if !has_address(world, key) => {
            let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
            bail!("pod {key} has no address (phase {phase}): there is no flow to judge yet");
        }
        _ => Ok(End { party: Party::Pod(key.clone()), name: key.to_string(), note: None, port }),
    }
}

fn has_address(world: &World, key: &Key) -> bool {
    let item = world.model.catalog().item(&ItemId::Pod(key.clone()));
    item.is_some_and(|item| !item.addresses.is_empty())
}

fn owner(world: &World, address: IpAddr) -> Option<Key> {
    let mut items = world.model.catalog().items();
    items
        .find(|item| item.is_pod() && item.addresses.contains(&address))
        .map(|item| item.id.key().clone())
}

fn render(
    world: &World,
    flow: &Flow,
    source: &End,
    destination: &End,
    decision: &Decision,
) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "VERDICT  {}", verdict(decision));
    let port = flow.destination_port.map(|port| format!(" port {port}")).unwrap_or_default();
    let protocol = protocol_name(flow.protocol);
    let _ = writeln!(text, "FLOW     {protocol} {} -> {}{port}", source.name, destination.name);
    for note in [&source.note, &destination.note].into_iter().flatten() {
        let _ = writeln!(text, "         {note}");
    }
    side(&mut text, "EGRESS ", &source.name, &decision.egress);
    side(&mut text, "INGRESS", &destination.name, &decision.ingress);
    for hint in hints(world, flow, decision) {
        let _ = writeln!(text, "FIX      {hint}");
    }
    for problem in &world.problems {
        let _ = writeln!(text, "PROBLEM  {problem}");
    }
    text
}

fn verdict(decision: &Decision) -> String {
    let at = |trail: &Trail| {
        let pod = trail.endpoint.as_ref().map(|pod| format!(" of {pod}")).unwrap_or_default();
        format!("{}{pod}", trail.direction)
    };
    match (decision.egress.allowed, decision.ingress.allowed) {
        (true, true) => "ALLOWED".to_owned(),
        (false, false) if decision.egress.reason == Reason::NoAddress => {
            "DENIED: the two ends have no address of one family".to_owned()
        }
        (false, false) => {
            format!("DENIED at {}, and at {}", at(&decision.egress), at(&decision.ingress))
        }
        (false, true) => format!("DENIED at {}", at(&decision.egress)),
        (true, false) => format!("DENIED at {}", at(&decision.ingress)),
    }
}

fn side(text: &mut String, label: &str, name: &str, trail: &Trail) {
    let arrow = if trail.allowed { "allow" } else { "DENY" };
    if trail.steps.is_empty() {
        let _ = writeln!(text, "{label}  {name}: {} -> {arrow}", trail.reason);
        return;
    }
    let isolating: Vec<String> = trail.steps.iter().map(policy_name).collect();
    let _ = writeln!(text, "{label}  {name}: selected by {}", isolating.join(", "));
    let mut tier = "";
    for step in &trail.steps {
        if step.tier != tier {
            let _ = writeln!(text, "         tier {}", step.tier);
            tier = &step.tier;
        }
        let _ = writeln!(text, "           {}", policy_name(step));
        if step.rules.is_empty() {
            let _ = writeln!(text, "             no {} rules", trail.direction);
        }
        for rule in &step.rules {
            let _ = writeln!(text, "             {}", rule_line(rule));
        }
    }
    let end = match &trail.reason {
        Reason::Rule(..) => "decided by the rule above".to_owned(),
        Reason::EndOfTier(tier) => format!("no rule matched; the end of tier {tier} denies"),
        other => other.to_string(),
    };
    let _ = writeln!(text, "         {end} -> {arrow}");
}

fn policy_name(step: &Step) -> String {
    format!("{} {}", kind_name(&step.policy), step.policy.key)
}

fn rule_line(rule: &RuleStep) -> String {
    match &rule.missed {
        None => format!("{} {}: MATCHES", rule.origin, rule.action),
        Some(why) => format!("{} {}: no, {why}", rule.origin, rule.action),
    }
}

/// Finds the classic mistake: the labels fit, but the selector is held to the policy's own namespace.
fn hints(world: &World, flow: &Flow, decision: &Decision) -> Vec<String> {
    let mut hints = Vec::new();
    let sides = [(&decision.egress, &flow.destination), (&decision.ingress, &flow.source)];
    for (trail, peer) in sides {
        let (false, Some(item)) = (trail.allowed, find(world, peer)) else { continue };
        for step in &trail.steps {
            let missed = step
                .rules
                .iter()
                .filter(|rule| rule.action == Action::Allow && rule.missed.is_some());
            hints.extend(
                missed.filter_map(|rule| other_namespace(world, trail.direction, step, rule, item)),
            );
        }
    }
    hints
}

fn find<'a>(world: &'a World, party: &Party) -> Option<&'a Item> {
    let catalog = world.model.catalog();
    match party {
        Party::Pod(key) => catalog.item(&ItemId::Pod(key.clone())),
        Party::Address(address) => {
            catalog.items().find(|item| item.is_pod() && item.owns(*address))
        }
    }
}

fn other_namespace(
    world: &World,
    direction: Direction,
    step: &Step,
    missed: &RuleStep,
    item: &Item,
) -> Option<String> {
    let policy = world.model.catalog().policy(&step.policy)?;
    let rule = policy.rules(direction)?.get(missed.index)?;
    let entity = match direction {
        Direction::Ingress => &rule.source,
        Direction::Egress => &rule.destination,
    };
    let selector = entity.peers.iter().flat_map(|peers| &peers.selectors).find(|selector| {
        selector.only_namespace().is_some_and(|only| {
            let moved = Item { namespace: Some(only.to_owned()), ..item.clone() };
            item.namespace.as_deref() != Some(only) && selector.matches(&moved)
        })
    })?;
    let (only, theirs) = (selector.only_namespace()?, item.namespace.as_deref()?);
    Some(format!(
        "{} {}: the labels of {} fit, but the selector means pods of namespace {only} only; for namespace {theirs} add \
         namespaceSelector kubernetes.io/metadata.name={theirs}",
        policy_name(step),
        missed.origin,
        item.id.key(),
    ))
}

fn as_json(flow: &Flow, source: &End, destination: &End, decision: &Decision) -> Value {
    json!({
        "allowed": decision.allowed,
        "verdict": verdict(decision),
        "protocol": protocol_name(flow.protocol),
        "source": source.name,
        "destination": destination.name,
        "port": flow.destination_port,
        "egress": trail_json(&decision.egress),
        "ingress": trail_json(&decision.ingress),
    })
}

fn trail_json(trail: &Trail) -> Value {
    let rule = |rule: &RuleStep| {
        json!({
            "rule": rule.origin,
            "action": rule.action.to_string(),
            "matches": rule.missed.is_none(),
            "why": rule.missed,
        })
    };
    let step = |step: &Step| {
        json!({
            "tier": step.tier,
            "kind": kind_name(&step.policy),
            "policy": step.policy.key.to_string(),
            "rules": step.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    };
    json!({
        "allowed": trail.allowed,
        "pod": trail.endpoint.as_ref().map(ToString::to_string),
        "reason": trail.reason.to_string(),
        "policies": trail.steps.iter().map(step).collect::<Vec<_>>(),
    })
}
