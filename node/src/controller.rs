//! The controller: cluster-wide duties, done by one of several copies that a Lease elects.
//!
//! Its duty so far is the collection of addresses, blocks, claims and handles that nobody uses ([`ipam::collector`] decides).
//! A copy that does not lead watches too, so that it can take over at once; its observations begin anew.

mod args;
mod collect;
mod lease;
mod numbers;
#[cfg(test)]
mod tests;

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use bgp::report::Exposition;
use ipam::Clock;
use serde_json::json;
use store::Store;
use tokio::{sync::watch, task::JoinSet};

pub use self::args::Args;
use self::{
    collect::{Collector, Report},
    lease::Elector,
};
use crate::{
    daemon::{to_its_end, until_told},
    http::{self, Page, PageFuture, Pages},
    metrics,
};

/// Name of the Lease.
pub(crate) const LEASE: &str = "voile-controller";

/// Runs the controller and maps how it ended to an exit code.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    args.log.init();
    to_its_end("voile-controller", run(args))
}

async fn run(args: Args) -> Result<()> {
    let store = args.cluster.connect().await?;
    let identity = args.identity()?;
    let listener = http::bind(args.metrics_address).await?;
    let mut tasks = JoinSet::new();
    let controller = start(&mut tasks, store, &args, &identity, Clock::system());
    tasks.spawn(http::serve(listener, pages(controller.clone())));
    tracing::info!(%identity, version = env!("CARGO_PKG_VERSION"), "voile-controller runs");
    let ended = until_told(&mut tasks, "giving the lease back").await;
    // Nothing is collected any more when somebody else may begin.
    tasks.shutdown().await;
    if ended.is_ok() {
        controller.give_back().await;
    }
    ended
}

/// What the pages and the end need.
#[derive(Clone)]
struct Controller {
    leading: watch::Receiver<bool>,
    report: watch::Receiver<Report>,
    give_back: Arc<dyn Fn() -> GiveBack + Send + Sync>,
}

type GiveBack = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Controller {
    async fn give_back(&self) {
        if *self.leading.borrow() {
            (self.give_back)().await;
        }
    }
}

/// Starts the election and the collection.
fn start<S: Store>(
    tasks: &mut JoinSet<()>,
    store: S,
    args: &Args,
    identity: &str,
    clock: Clock,
) -> Controller {
    let (leading_sender, leading) = watch::channel(false);
    let (report_sender, report) = watch::channel(Report::default());
    let elector = || {
        Elector::new(store.clone(), &args.cluster.namespace, identity, args.lease(), clock.clone())
    };
    tasks.spawn(elector().run(leading_sender));
    let last_word = elector();
    let collector = Collector::new(store.clone(), args.period, args.leak_grace, clock.clone());
    tasks.spawn(collector.run(leading.clone(), report_sender));
    let give_back = move || -> GiveBack {
        let elector = last_word.clone();
        Box::pin(async move { elector.give_back().await })
    };
    Controller { leading, report, give_back: Arc::new(give_back) }
}

fn pages(controller: Controller) -> Pages {
    Arc::new(move |path| {
        let report = controller.report.borrow();
        let leading = *controller.leading.borrow();
        let page = match path {
            "/metrics" => Page::metrics(render(leading, &report)),
            "/healthz" => Page::text(200, "ok\n"),
            "/readyz" => match &report.not_ready {
                None => Page::text(200, "ok\n"),
                Some(reason) => Page::text(503, format!("{reason}\n")),
            },
            "/status" => {
                let status = json!({
                    "leading": leading, "passes": report.passes, "lastPass": report.last_pass,
                    "notReady": report.not_ready, "errors": report.errors,
                });
                Page {
                    status: 200,
                    content_type: "application/json",
                    body: format!("{status:#}\n"),
                }
            }
            _ => return None,
        };
        drop(report);
        Some(Box::pin(std::future::ready(page)) as PageFuture)
    })
}

/// Only the leader counts addresses: sums over all copies are then right.
fn render(leading: bool, report: &Report) -> Exposition {
    let mut text = Exposition::default();
    metrics::build_info(&mut text);
    text.single("voile_controller_leader", "gauge", "Whether this copy leads.", u8::from(leading));
    if leading {
        text.single(
            "voile_controller_passes_total",
            "counter",
            "Looks at the cluster's addresses since this copy leads.",
            report.passes,
        );
        text.single(
            "voile_controller_errors",
            "gauge",
            "Releases that failed in the last pass.",
            report.errors.len(),
        );
        report.numbers.render(&mut text);
    }
    text
}
