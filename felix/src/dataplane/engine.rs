//! The engine as the driver sees it.

use super::{Felix, Target};
use crate::{
    driver::{Engine, LocalRoute, Outcome},
    nft::Table,
    update::Update,
};

impl Engine for Felix {
    fn on_update(&mut self, update: Update) {
        Self::on_update(self, update);
    }

    fn flush(&mut self, table: &mut Table) -> Outcome {
        let flush = Self::flush(self, table);
        let not_ready = flush.not_ready.into_iter();
        // Also when there are none: then those of an earlier life are to go.
        let routes = flush.routes_settled.then(|| self.routes().iter().map(route).collect());
        // Only when there may be others than the last time.
        let problems = std::mem::take(&mut self.problems_due).then(|| self.problems());
        Outcome {
            ready: flush.ready.into_iter().collect(),
            not_ready: not_ready.map(|(id, reason)| (id, reason.to_string())).collect(),
            policies: flush.stats.active_policies,
            routes,
            problems: problems.map(|all| all.iter().map(ToString::to_string).collect()),
        }
    }
}

fn route(route: &super::Route) -> LocalRoute {
    let interface = match &route.target {
        Target::Device(name) => Some(name.clone()),
        Target::Blackhole => None,
    };
    LocalRoute { prefix: route.prefix, interface }
}
