//! `voilectl policy show`.

use anyhow::{Result, bail};
use api::Key;
use felix::calc::model::{Direction, Policy};
use serde::Serialize;
use store::Store;

use super::{Context, World, kind_name};
use crate::{
    cmd::Outcome,
    output::{Format, Table, machine},
};

/// Names of pods shown in a row of the normal table.
const NAMES_SHOWN: usize = 3;

/// One policy, as `-o json` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    tier: String,
    order: Option<f64>,
    kind: &'static str,
    #[serde(skip)]
    short_kind: &'static str,
    name: String,
    types: Vec<String>,
    selector: String,
    pods: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    policies: &'a [Entry],
    problems: &'a [String],
}

/// Runs the command.
///
/// # Errors
/// A pod that does not exist, and whatever the API server answers.
pub async fn show<S: Store>(context: &Context<S>, pod: Option<&str>) -> Result<Outcome> {
    let world = World::load(context).await?;
    let pod = pod.map(pod_key).transpose()?;
    if let Some(pod) = &pod
        && !world.pods.contains_key(pod)
    {
        bail!("there is no pod {pod}; `voilectl get pods -A` lists them");
    }
    let mut entries: Vec<Entry> =
        world.policies().into_iter().map(|one| entry(&world, one)).collect();
    if let Some(pod) = &pod {
        let name = pod.to_string();
        entries.retain(|entry| entry.pods.contains(&name));
    }
    let finding = !world.problems.is_empty();
    let listing = Listing { policies: &entries, problems: &world.problems };
    if let Some(text) = machine(context.format, &listing)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = match (context.format, entries.is_empty(), &pod) {
        (Format::Name, ..) => {
            entries.iter().map(|entry| format!("{}/{}\n", entry.short_kind, entry.name)).collect()
        }
        (_, true, Some(pod)) => {
            format!("no policy selects {pod}: everything is allowed to and from it\n")
        }
        (_, true, None) => "no policies: everything is allowed\n".to_owned(),
        (format, false, _) => table(&entries, format == Format::Wide),
    };
    for problem in &world.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    Ok(Outcome { text, finding })
}

/// Reads `namespace/name`.
pub(super) fn pod_key(text: &str) -> Result<Key> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(Key::namespaced(namespace, name))
        }
        _ => bail!("'{text}' is no pod: write namespace/name"),
    }
}

fn entry(world: &World, policy: &Policy) -> Entry {
    let directions = [(Direction::Ingress, "Ingress"), (Direction::Egress, "Egress")];
    let types = directions.iter().filter(|(direction, _)| policy.rules(*direction).is_some());
    let items = world.model.catalog().items();
    let selected = items.filter(|item| item.is_pod() && policy.subject.matches(item));
    Entry {
        tier: policy.tier.clone(),
        order: policy.order.0,
        kind: kind_name(&policy.id),
        short_kind: policy.id.short_kind(),
        name: policy.id.key.to_string(),
        types: types.map(|(_, name)| (*name).to_owned()).collect(),
        selector: policy.subject.text().to_owned(),
        pods: selected.map(|item| item.id.key().to_string()).collect(),
    }
}

fn table(entries: &[Entry], wide: bool) -> String {
    let mut table =
        Table::new(&["TIER", "ORDER", "KIND", "NAMESPACE/NAME", "TYPES", "SELECTOR", "PODS"]);
    for entry in entries {
        table.row([
            entry.tier.clone(),
            entry.order.map(|order| order.to_string()).unwrap_or_default(),
            entry.kind.to_owned(),
            entry.name.clone(),
            entry.types.join(","),
            entry.selector.clone(),
            pods(&entry.pods, wide),
        ]);
    }
    table.render()
}

fn pods(names: &[String], wide: bool) -> String {
    if names.is_empty() {
        return "0".to_owned();
    }
    let shown = if wide { names.len() } else { NAMES_SHOWN };
    let mut text = names.iter().take(shown).cloned().collect::<Vec<_>>().join(",");
    if names.len() > shown {
        text.push_str(",...");
    }
    format!("{} ({text})", names.len())
}
