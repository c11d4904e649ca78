//! What peers are told, worked out once more for those who watch (RFC 8671).

use std::borrow::Cow;

use super::{Table, UpdateGroup, outgoing};
use crate::{
    attr::{AttrId, PathAttributes},
    rib::{PeerId, SlotId},
    types::Prefix,
};

/// Rules and routes of all groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exports<'a> {
    pub(crate) groups: &'a [UpdateGroup],
    pub(crate) table: Table<'a>,
}

/// A path that comes into question for a peer.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The identifier that we give it (RFC 7911); 0 without ADD-PATH.
    pub(crate) path_id: u32,
    pub(crate) before: AttrId,
    /// As it goes out; none: export policy and the like stop it.
    pub(crate) after: Option<PathAttributes>,
}

impl Exports<'_> {
    /// Lists what comes into question for a peer.
    pub(crate) fn of(&self, peer: PeerId, id: SlotId, prefix: &Prefix) -> Vec<Outgoing> {
        let Table { rib, interner, senders } = self.table;
        let Some(group) = self.groups.iter().find(|group| group.has(peer)) else {
            return Vec::new();
        };
        if !group.key.families.contains(prefix.family()) {
            return Vec::new();
        }
        let several = group.key.add_path.contains(prefix.family());
        let chosen = rib.chosen(id).filter(|_| !several);
        let all = several.then(|| rib.usable_paths(id, interner)).into_iter().flatten();
        let paths = chosen.into_iter().chain(all).filter(|path| path.key.source != peer);
        let outgoing = paths.filter_map(|path| {
            let (before, sender) = (path.accepted().ok()?, senders.get(&path.key.source)?);
            let attributes = interner.attributes(before);
            let after = outgoing(&group.key, prefix, Cow::Owned(attributes), sender).ok();
            let path_id = if several { path.local_id() } else { 0 };
            Some(Outgoing { path_id, before, after })
        });
        outgoing.collect()
    }
}
