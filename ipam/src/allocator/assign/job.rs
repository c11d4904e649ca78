//! A request for addresses, and how far each of them has come.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::AllocationAttribute;
use ipnet::IpNet;

use super::super::{Command, Reply};
use crate::{AssignError, AutoAssign, Family, UnixNanos};

/// One wanted address.
#[derive(Clone, Copy, Debug)]
pub(in crate::allocator) enum Want {
    Any(Family),
    Certain(IpAddr),
}

impl Want {
    pub(in crate::allocator) fn family(self) -> Family {
        match self {
            Self::Any(family) => family,
            Self::Certain(address) => Family::of(address),
        }
    }
}

/// How far a wanted address has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// No block yet.
    Open,
    /// This block is to have it.
    Moving(IpNet),
    /// It has an address, with the block's mask.
    Got(IpNet),
}

/// A request.
pub(super) struct Job {
    pub(super) request: AutoAssign,
    pub(super) owner: AllocationAttribute,
    pub(super) reply: Reply<Vec<IpNet>>,
    pub(super) wants: Vec<(Want, State)>,
    /// Blocks that the handle was told of.
    pub(super) nets: BTreeSet<IpNet>,
    /// How often somebody else was faster.
    pub(super) rounds: u32,
    pub(super) failed: Option<AssignError>,
    /// Its handle is being written.
    pub(super) writes_handle: bool,
    /// Something is open again since then.
    pub(super) again: bool,
}

impl Job {
    pub(super) fn new(command: Command, now: UnixNanos) -> Option<Self> {
        let (request, addresses, reply) = match command {
            Command::Auto(request, reply) => (request, Vec::new(), reply),
            Command::Certain(request, addresses, reply) => (request, addresses, reply),
            _ => return None,
        };
        let wants = wants(&request, &addresses).into_iter().map(|want| (want, State::Open));
        let (owner, wants) = (request.owner.attribute(&request.handle, now), wants.collect());
        Some(Self {
            request,
            owner,
            reply,
            wants,
            nets: BTreeSet::new(),
            rounds: 0,
            failed: None,
            writes_handle: false,
            again: false,
        })
    }

    /// What it remembers.
    #[cfg(test)]
    pub(super) fn told(&self) -> String {
        let Self { request, owner, wants, nets, rounds, failed, writes_handle, again, .. } = self;
        format!(
            "{request:?} {owner:?} {wants:?} {nets:?} {rounds} {failed:?} {writes_handle} {again}"
        )
    }

    /// Addresses that it has.
    pub(super) fn got(&self) -> Vec<IpNet> {
        let got = self.wants.iter().filter_map(|(_, state)| match state {
            State::Got(net) => Some(*net),
            State::Open | State::Moving(_) => None,
        });
        got.collect()
    }

    /// Whether it can be answered: nothing is on its way, and nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        let moves = self.writes_handle
            || self.wants.iter().any(|(_, state)| matches!(state, State::Moving(_)));
        let open = self.wants.iter().any(|(_, state)| *state == State::Open);
        !moves && (!open || self.failed.is_some())
    }
}

/// Returns what a request wants: these addresses, or as many as it says when there are none.
pub(in crate::allocator) fn wants(request: &AutoAssign, addresses: &[IpAddr]) -> Vec<Want> {
    if !addresses.is_empty() {
        return addresses.iter().map(|one| Want::Certain(*one)).collect();
    }
    let v4 = (0..request.num4).map(|_| Want::Any(Family::V4));
    v4.chain((0..request.num6).map(|_| Want::Any(Family::V6))).collect()
}
