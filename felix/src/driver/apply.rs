//! Making the kernel's table match: commit, and what to do when that fails.

use std::{io, sync::Arc};

use crate::{
    linux::{
        monitor::{Heard, Monitor},
        nft::{CommitError, Nft, Refusal},
    },
    nft::{Batch, Chain, ChainName, Op, Rule, Table, Verdict},
};

/// Attempts while others keep committing between our looks.
const ATTEMPTS: usize = 20;

/// The table, and the sockets that make it so.
pub(super) struct Applier {
    pub(super) table: Table,
    nft: Nft,
    /// Chains that stand in the kernel as plain `drop` because their rules were refused.
    quarantined: Vec<ChainName>,
}

/// What an attempt to match the kernel came to.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Transactions committed.
    pub(super) commits: u64,
    /// Changes by others that were found on the way.
    pub(super) drift: Option<Heard>,
    /// Chains put into quarantine.
    pub(super) quarantined: Vec<ChainName>,
    /// Why the kernel does not have everything.
    pub(super) error: Option<String>,
}

impl Applier {
    pub(super) fn new(table: Table, nft: Nft) -> Self {
        Self { table, nft, quarantined: Vec::new() }
    }

    /// Reads the kernel's copy.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let actual = self.nft.read(self.table.name())?;
        self.table.adopt(actual);
        self.quarantined.clear();
        Ok(())
    }

    /// Whether a retry is due although nothing changed.
    pub(super) fn has_quarantined(&self) -> bool {
        !self.quarantined.is_empty()
    }

    /// Forgets about a foreign commit that did not touch our table.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.nft.refresh().map(drop)
    }

    /// Commits what is dirty.
    pub(super) fn apply(&mut self, monitor: &mut Monitor) -> Applied {
        let mut applied = Applied::default();
        match self.try_apply(monitor, &mut applied) {
            Ok(()) => {}
            Err(error) => applied.error = Some(error.to_string()),
        }
        applied
    }

    fn try_apply(
        &mut self,
        monitor: &mut Monitor,
        applied: &mut Applied,
    ) -> Result<(), CommitError> {
        let mut reread = false;
        for _ in 0..ATTEMPTS {
            let Some(batch) = self.table.plan() else {
                self.table.committed();
                return Ok(());
            };
            match self.nft.commit(&batch) {
                Ok(_) => {
                    self.table.committed();
                    applied.commits += 1;
                    return Ok(());
                }
                Err(CommitError::Stale(_)) => self.look_again(monitor, applied)?,
                // Perhaps the kernel isn't what we think: look once, then believe the refusal.
                Err(CommitError::Refused(_)) if !reread => {
                    reread = true;
                    self.read()?;
                }
                Err(CommitError::Refused(refusals)) => {
                    return self.quarantine(&batch, refusals, applied);
                }
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale(0))
    }

    /// Someone else committed: was it about our table?
    fn look_again(
        &mut self,
        monitor: &mut Monitor,
        applied: &mut Applied,
    ) -> Result<(), CommitError> {
        let heard = monitor.drain()?;
        if heard.is_drift() {
            self.read()?;
            applied.drift.get_or_insert_with(Heard::default).merge(heard);
        } else {
            self.refresh()?;
        }
        Ok(())
    }

    /// One bad policy must not hold up all others: refused chains become `drop`, the rest is committed.
    fn quarantine(
        &mut self,
        batch: &Batch,
        refusals: Vec<Refusal>,
        applied: &mut Applied,
    ) -> Result<(), CommitError> {
        let Some((reduced, chains)) = without(batch, &refusals) else {
            return Err(CommitError::Refused(refusals));
        };
        self.nft.commit(&reduced)?;
        self.table.committed();
        applied.commits += 1;
        applied.error = Some(CommitError::Refused(refusals).to_string());
        applied.quarantined.clone_from(&chains);
        self.quarantined = chains;
        Ok(())
    }
}

/// The batch with refused chains dropping everything; `None` when something else was refused too, or a base chain:
/// closing that would cut the node off.
fn without(batch: &Batch, refusals: &[Refusal]) -> Option<(Batch, Vec<ChainName>)> {
    let mut reduced = batch.clone();
    let mut chains = Vec::new();
    for refusal in refusals {
        let op = reduced.ops.get_mut(refusal.op?)?;
        let Op::AddRules(chain) = op else { return None };
        if chain.base.is_some() {
            return None;
        }
        let name = chain.name.clone();
        let closed = Rule::always(Verdict::Drop).comment("refused by the kernel");
        *op = Op::AddRules(Arc::new(Chain::new(name.clone(), vec![closed])));
        if !chains.contains(&name) {
            chains.push(name);
        }
    }
    (!chains.is_empty()).then_some((reduced, chains))
}
