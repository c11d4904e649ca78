//! `voilectl bgp rib`: the tables of the nodes' speakers, part by part.

use anyhow::{Context as _, Result};
use api::{BgpPolicySide, BgpQuerySpec, BgpTable, BgpTableQuery};
use bgp::{
    Prefix,
    report::{Columns, TableReport, TableRouteReport},
    snapshot::{PolicySide, Table},
};
use serde::Serialize;
use store::Store;

use super::{
    Context, Outcome,
    ask::{self, Answer},
    which::Which,
};
use crate::{
    cli::{BgpRibArgs, RibTable},
    output::{Flow, Format, yaml},
};

/// One prefix of one node, as `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRoute<'a> {
    node: &'a str,
    /// Why there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    route: Option<&'a TableRouteReport>,
}

/// Runs `bgp rib`: exit code 1 when a node does not answer or has no such peer.
///
/// # Errors
/// A node that does not exist, and whatever the API server answers.
pub async fn rib<S: Store>(context: &Context<S>, args: &BgpRibArgs) -> Result<Outcome> {
    let which = Which::read(&args.which)?;
    let (view, table, usual) = match args.table {
        RibTable::AdjIn => (BgpTable::AdjIn, Table::AdjIn, BgpPolicySide::Pre),
        RibTable::Loc => (BgpTable::Loc, Table::Loc, BgpPolicySide::Post),
        RibTable::AdjOut => (BgpTable::AdjOut, Table::AdjOut, BgpPolicySide::Post),
    };
    let policy = match (args.pre_policy, args.post_policy) {
        (true, _) => BgpPolicySide::Pre,
        (_, true) => BgpPolicySide::Post,
        _ => usual,
    };
    let mut page = Page::new(context.format, table, policy);
    let mut finding = false;
    for (node, silent) in ask::nodes(context, which.node.as_deref()).await? {
        let mut after = None;
        loop {
            let answer = match &silent {
                Some(why) => Err(why.clone()),
                None => {
                    let within = which.within.map(|prefix| prefix.to_string());
                    let after = after.map(|prefix: Prefix| prefix.to_string());
                    let question = BgpQuerySpec {
                        peer: which.peer.clone(),
                        table: Some(BgpTableQuery { view, policy, within, after }),
                        ..BgpQuerySpec::default()
                    };
                    one(context, &node, &question).await?
                }
            };
            let text = match answer {
                Ok(part) => {
                    after = part.next;
                    page.part(&node, &part)?
                }
                Err(why) => {
                    (finding, after) = (true, None);
                    page.error(&node, &why)?
                }
            };
            if context.sink.write(&text)? == Flow::Enough {
                return Ok(Outcome { text: String::new(), finding });
            }
            if after.is_none() {
                break;
            }
        }
    }
    Ok(Outcome { text: page.end(), finding })
}

/// Asks one node for a part of a table.
pub(super) async fn one<S: Store>(
    context: &Context<S>,
    node: &str,
    question: &BgpQuerySpec,
) -> Result<Result<TableReport, String>> {
    let nodes = [node.to_owned()];
    let answers = ask::put(context, &nodes, question).await?;
    let Some(Answer { result, .. }) = answers.into_iter().next() else {
        return Ok(Err("no answer".to_owned()));
    };
    let read = |text: String| {
        serde_json::from_str(&text)
            .with_context(|| format!("{node} answers in another version's words"))
    };
    Ok(match result {
        Ok(text) => Ok(read(text)?),
        Err(why) => Err(why),
    })
}

/// The answer as it is printed, part by part.
struct Page {
    format: Format,
    table: Table,
    policy: PolicySide,
    columns: Columns,
    begun: bool,
}

impl Page {
    fn new(format: Format, table: Table, policy: BgpPolicySide) -> Self {
        let policy = match policy {
            BgpPolicySide::Pre => PolicySide::Pre,
            BgpPolicySide::Post => PolicySide::Post,
        };
        Self { format, table, policy, columns: Columns::new(3), begun: false }
    }

    fn part(&mut self, node: &str, part: &TableReport) -> Result<String> {
        let routes = part.routes.iter();
        match self.format {
            Format::Json | Format::Yaml => {
                let route = |route| NodeRoute { node, error: None, route: Some(route) };
                routes.map(|each| self.object(&route(each))).collect()
            }
            Format::Name => Ok(routes.map(|route| format!("{node}/{}\n", route.prefix)).collect()),
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                let rows = part.rows(self.table, self.policy, wide);
                let mut all = Vec::with_capacity(rows.len().saturating_add(1));
                if !rows.is_empty() && !std::mem::replace(&mut self.begun, true) {
                    let head = std::iter::once("NODE").chain(TableReport::head(self.table, wide));
                    all.push(head.map(str::to_owned).collect());
                }
                let with_node = |row: Vec<String>| {
                    std::iter::once(node.to_owned()).chain(row).collect::<Vec<_>>()
                };
                all.extend(rows.into_iter().map(with_node));
                Ok(self.columns.render(&all))
            }
        }
    }

    fn error(&mut self, node: &str, why: &str) -> Result<String> {
        match self.format {
            Format::Json | Format::Yaml => {
                self.object(&NodeRoute { node, error: Some(why), route: None })
            }
            Format::Name => Ok(String::new()),
            Format::Table | Format::Wide => Ok(format!("{node}: {why}\n")),
        }
    }

    /// One element of the one list.
    fn object(&mut self, object: &NodeRoute<'_>) -> Result<String> {
        if self.format == Format::Yaml {
            return yaml(&[object]);
        }
        let begin = if std::mem::replace(&mut self.begun, true) { "," } else { "[" };
        Ok(format!("{begin}\n{}", serde_json::to_string(object)?))
    }

    fn end(self) -> String {
        match (self.format, self.begun) {
            (Format::Json, true) => "\n]\n".to_owned(),
            (Format::Json, false) => "[]\n".to_owned(),
            _ => String::new(),
        }
    }
}
