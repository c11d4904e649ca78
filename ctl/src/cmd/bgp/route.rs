//! `voilectl bgp route`: why a prefix goes where it goes, as the speakers of the nodes say it.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Context as _, Result};
use api::BgpQuerySpec;
use bgp::report::RouteReport;
use serde::Serialize;
use store::Store;

use super::{
    Context, Outcome,
    ask::{Answer, ask},
};
use crate::output::{Format, machine};

/// What one node says, as `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRoute<'a> {
    node: String,
    destination: &'a str,
    /// Why there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteReport>,
}

/// Reads a prefix or an address.
///
/// # Errors
/// Text that is neither.
pub fn destination(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    match text.parse::<bgp::Prefix>() {
        Ok(prefix) => Ok(prefix.to_string()),
        Err(_) => Err("expected a prefix such as 10.244.7.0/24, or an address".to_owned()),
    }
}

/// Runs `bgp route`: exit code 1 when a node has no route, its kernel refused it, or it does not answer.
///
/// # Errors
/// A node that does not exist, and whatever the API server answers.
pub async fn route<S: Store>(
    context: &Context<S>,
    destination: &str,
    node: Option<&str>,
) -> Result<Outcome> {
    let question =
        BgpQuerySpec { destination: Some(destination.to_owned()), ..BgpQuerySpec::default() };
    let answers = ask(context, node, &question).await?;
    let routes: Result<Vec<NodeRoute<'_>>> =
        answers.into_iter().map(|answer| read(answer, destination)).collect();
    let routes = routes?;
    let is_bad = |route: &NodeRoute<'_>| {
        route.route.as_ref().is_none_or(|route| route.kernel.state == "refused" || !route.is_used())
    };
    let finding = routes.iter().any(is_bad);
    if let Some(text) = machine(context.format, &routes)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = String::new();
    for NodeRoute { node, error, route, .. } in &routes {
        match (route, context.format) {
            (Some(route), Format::Name) => writeln!(text, "{node}/{}", route.prefix)?,
            (None, Format::Name) => {}
            (Some(route), format) => {
                let body = route.to_text(format == Format::Wide);
                write!(text, "{node}: {}\n{body}\n", route.prefix)?;
            }
            (None, _) => {
                let error = error.as_deref().unwrap_or_default();
                write!(text, "{node}: {error}\n\n")?;
            }
        }
    }
    // Between nodes, not behind the last one.
    if text.ends_with("\n\n") {
        text.pop();
    }
    Ok(Outcome { text, finding })
}

fn read<'a>(answer: Answer, destination: &'a str) -> Result<NodeRoute<'a>> {
    let Answer { node, result } = answer;
    let (error, route) = match result {
        Ok(text) => {
            let route = serde_json::from_str(&text)
                .with_context(|| format!("{node} answers in another version's words"))?;
            (None, Some(route))
        }
        Err(error) => (Some(error), None),
    };
    Ok(NodeRoute { node, destination, error, route })
}
