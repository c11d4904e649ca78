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

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use ipam::Clock;
use serde_json::json;
use store::Store;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

pub use self::args::Args;
use self::{
    collect::{Collector, Report},
    lease::Elector,
};
use crate::{
    daemon::{connect_to, init_log},
    http::{self, Page, PageFuture, Pages},
    metrics::Text,
};

/// Name of the Lease.
pub(crate) const LEASE: &str = "voile-controller";

/// Runs the controller and maps how it ended to an exit code.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    init_log(&args.log, args.log_json);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(args));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "voile-controller ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let store = connect_to(args.kubeconfig.as_deref(), &args.service_account).await?;
    let identity = args.identity()?;
    let listener = http::bind(args.metrics_address).await?;
    let mut tasks = JoinSet::new();
    let controller = start(&mut tasks, store, &args, &identity, Clock::system());
    tasks.spawn(http::serve(listener, pages(controller.clone())));
    tracing::info!(%identity, version = env!("CARGO_PKG_VERSION"), "voile-controller runs");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: giving the lease back"),
        _ = interrupt.recv() => tracing::info!("SIGINT: giving the lease back"),
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => return Err(error).context("a task panicked"),
            _ => anyhow::bail!("a task ended that never should"),
        },
    }
    // Nothing is collected any more when somebody else may begin.
    tasks.shutdown().await;
    controller.give_back().await;
    Ok(())
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
    let elector =
        || Elector::new(store.clone(), &args.namespace, identity, args.lease(), clock.clone());
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
            "/metrics" => Page {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: render(leading, &report),
            },
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
fn render(leading: bool, report: &Report) -> String {
    let mut text = Text(String::new());
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
    text.0
}
