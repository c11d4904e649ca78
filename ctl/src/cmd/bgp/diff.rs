//! `voilectl bgp diff`: what two nodes see differently, or what a node does not see although the cluster's blocks say that it
//! should.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use api::{
    AffinityState, BgpPolicySide, BgpQuerySpec, BgpTable, BgpTableQuery, BlockAffinity, IpPool,
};
use bgp::{
    Prefix,
    report::{Columns, TableRouteReport},
};
use serde::Serialize;
use store::Store;

use super::{Context, Outcome, ask, rib::one};
use crate::output::{Format, machine};

/// A prefix that is not as it should be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    prefix: Prefix,
    /// What the first node has; none: nothing.
    first: Option<String>,
    /// What the second node has, or what should be.
    second: Option<String>,
}

/// Runs `bgp diff`: exit code 1 when there is a difference.
///
/// # Errors
/// Nodes that do not exist or do not answer, and whatever the API server answers.
pub async fn diff<S: Store>(context: &Context<S>, words: &[String]) -> Result<Outcome> {
    let (mut nodes, mut within) = (Vec::new(), None);
    for word in words {
        match word.parse::<Prefix>() {
            Ok(prefix) => within = Some(prefix),
            Err(_) => nodes.push(word.as_str()),
        }
    }
    let (first, differences, heads) = match nodes.as_slice() {
        [node] => {
            let table = loc_rib(context, node, within).await?;
            let differences = expected(context, node, &table, within).await?;
            (*node, differences, ["PREFIX".to_owned(), (*node).to_owned(), "EXPECTED".to_owned()])
        }
        [first, second] => {
            let one = loc_rib(context, first, within).await?;
            let other = loc_rib(context, second, within).await?;
            let heads = ["PREFIX", first, second].map(str::to_owned);
            (*first, compare(&one, &other), heads)
        }
        _ => bail!("give one node, which is compared with the blocks of the cluster, or two"),
    };
    let finding = !differences.is_empty();
    if let Some(text) = machine(context.format, &differences)? {
        return Ok(Outcome { text, finding });
    }
    if context.format == Format::Name {
        let names = differences.iter().map(|each| format!("{first}/{}\n", each.prefix));
        return Ok(Outcome { text: names.collect(), finding });
    }
    if differences.is_empty() {
        return Ok(Outcome::ok("no difference\n"));
    }
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = differences
        .iter()
        .map(|each| vec![each.prefix.to_string(), dash(&each.first), dash(&each.second)]);
    let rows: Vec<Vec<String>> = std::iter::once(heads.to_vec()).chain(rows).collect();
    Ok(Outcome { text: Columns::new(3).render(&rows), finding })
}

type LocRib = BTreeMap<Prefix, TableRouteReport>;

async fn loc_rib<S: Store>(
    context: &Context<S>,
    node: &str,
    within: Option<Prefix>,
) -> Result<LocRib> {
    let nodes = ask::nodes(context, Some(node)).await?;
    if let Some(why) = nodes.into_iter().find_map(|(_, silent)| silent) {
        bail!("{node}: {why}");
    }
    let (mut table, mut after) = (LocRib::new(), None);
    loop {
        let view = BgpTableQuery {
            view: BgpTable::Loc,
            policy: BgpPolicySide::Post,
            within: within.map(|prefix| prefix.to_string()),
            after: after.map(|prefix: Prefix| prefix.to_string()),
        };
        let question = BgpQuerySpec { table: Some(view), ..BgpQuerySpec::default() };
        let part = match one(context, node, &question).await? {
            Ok(part) => part,
            Err(why) => bail!("{node}: {why}"),
        };
        let routes = part.routes.into_iter();
        table.extend(routes.filter_map(|route| Some((route.prefix.parse().ok()?, route))));
        after = part.next;
        if after.is_none() {
            return Ok(table);
        }
    }
}

/// The AS path of the best path; none: originated there.
fn as_path(route: &TableRouteReport) -> Option<&str> {
    let best = route.paths.first()?;
    best.peer.as_ref()?;
    Some(best.accepted.as_ref().unwrap_or(&best.received).as_path.as_str())
}

fn in_words(route: &TableRouteReport) -> String {
    match as_path(route) {
        None => "originated here".to_owned(),
        Some("") => "learned, no AS path".to_owned(),
        Some(path) => format!("AS path {path}"),
    }
}

/// What is on one side only, and what both learned over other systems. That somebody's own route is learned by the others is
/// no difference.
fn compare(one: &LocRib, other: &LocRib) -> Vec<Difference> {
    let all: std::collections::BTreeSet<&Prefix> = one.keys().chain(other.keys()).collect();
    let different = all.into_iter().filter(|prefix| match (one.get(prefix), other.get(prefix)) {
        (Some(one), Some(other)) => match (as_path(one), as_path(other)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        },
        _ => true,
    });
    let difference = |prefix: &Prefix| Difference {
        prefix: *prefix,
        first: one.get(prefix).map(in_words),
        second: other.get(prefix).map(in_words),
    };
    different.map(difference).collect()
}

/// Every confirmed block must be known, nothing else out of the pools, and the kernel must have it.
async fn expected<S: Store>(
    context: &Context<S>,
    node: &str,
    table: &LocRib,
    within: Option<Prefix>,
) -> Result<Vec<Difference>> {
    let is_asked = |prefix: &Prefix| within.is_none_or(|within| within.contains(prefix));
    let affinities = context.list::<BlockAffinity>().await?;
    let blocks: BTreeMap<Prefix, String> = affinities
        .items
        .iter()
        .filter(|each| {
            let confirmed =
                matches!(each.spec.state, AffinityState::Confirmed | AffinityState::Unset);
            confirmed && !each.spec.deleted
        })
        .filter_map(|each| Some((each.spec.cidr.parse().ok()?, each.spec.node.clone())))
        .collect();
    let pools = context.list::<IpPool>().await?;
    let pools: Vec<Prefix> =
        pools.items.iter().filter_map(|pool| pool.spec.cidr.parse().ok()).collect();
    let mut found = Vec::new();
    for (block, owner) in blocks.iter().filter(|(block, _)| is_asked(block)) {
        let should =
            if owner == node { "own block".to_owned() } else { format!("block of {owner}") };
        let route = table.get(block);
        let refused = route.and_then(|route| route.kernel.as_ref());
        let refused = refused.filter(|kernel| kernel.state == "refused");
        let first = match (route, refused) {
            (Some(_), None) => continue,
            (Some(_), Some(kernel)) => {
                let why = kernel.why.as_deref().unwrap_or_default();
                Some(format!("the kernel refuses it: {why}"))
            }
            (None, _) => None,
        };
        found.push(Difference { prefix: *block, first, second: Some(should) });
    }
    let in_pool = |prefix: &Prefix| pools.iter().any(|pool| pool.contains(prefix));
    // An address alone was borrowed from the block that it lies in.
    let is_known = |prefix: &Prefix| {
        blocks.keys().any(|block| block == prefix || is_host(prefix) && block.contains(prefix))
    };
    let strange = table.iter().filter(|(prefix, _)| in_pool(prefix) && !is_known(prefix));
    found.extend(strange.map(|(prefix, route)| Difference {
        prefix: *prefix,
        first: Some(in_words(route)),
        second: None,
    }));
    found.sort_by_key(|each| each.prefix);
    Ok(found)
}

fn is_host(prefix: &Prefix) -> bool {
    prefix.length() == Prefix::host(prefix.address()).length()
}
