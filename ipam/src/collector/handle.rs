//! Handles that disagree with the blocks, which are the truth.

use std::collections::{BTreeMap, BTreeSet};

use api::IpamHandle;

use super::{HandleRepair, Inventory, Pass, ReleasePlan, Subject};
use crate::{block, handle};

impl Pass<'_> {
    /// Finds handles that nobody finished writing, but for those whose addresses are released anyway.
    pub(super) fn handles(&mut self, inventory: &Inventory<'_>, plan: &mut ReleasePlan) {
        let released: BTreeSet<String> =
            plan.handles.iter().map(|one| handle::object_name(&one.handle)).collect();
        let mut actual: BTreeMap<String, (String, BTreeMap<String, u32>)> = BTreeMap::new();
        for spec in inventory.blocks.iter().map(|block| &block.spec).filter(|spec| !spec.deleted) {
            for (_, owner) in block::assigned(spec) {
                let Some(id) = &owner.handle_id else { continue };
                let entry = actual
                    .entry(handle::object_name(id))
                    .or_insert_with(|| (id.clone(), BTreeMap::new()));
                *entry.1.entry(spec.cidr.clone()).or_default() += 1;
            }
        }
        let mut stored: BTreeMap<&str, &IpamHandle> =
            inventory.handles.iter().map(|one| (one.metadata.name.as_str(), *one)).collect();
        for (name, (id, block)) in &actual {
            let found = stored.remove(name.as_str());
            let agrees = found.is_some_and(|one| !one.spec.deleted && one.spec.block == *block);
            if !agrees && !released.contains(name) {
                self.repair(id, found, block.clone(), plan);
            }
        }
        for one in stored.into_values() {
            self.repair(&one.spec.handle_id, Some(one), BTreeMap::new(), plan);
        }
    }

    fn repair(
        &mut self,
        id: &str,
        found: Option<&IpamHandle>,
        block: BTreeMap<String, u32>,
        plan: &mut ReleasePlan,
    ) {
        let revision = found.and_then(|one| one.metadata.resource_version.clone());
        let mark = format!("{revision:?} {block:?}");
        let subject = Subject::Handle(handle::object_name(id));
        if self.is_due(subject, mark, self.rules.grace) {
            plan.repairs.push(HandleRepair { handle: id.to_owned(), revision, block });
        }
    }
}
