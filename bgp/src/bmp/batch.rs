//! Routes of one step, sorted so that those with the same attributes share messages.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::BytesMut;

use super::monitor::View;
use crate::{
    attr::{AttrId, Interner, NextHop, PathAttributes, encode_block, encode_next_hop},
    types::Family,
    update_group::{Block, Packer},
    wire::{Item, MAX_EXTENDED_MESSAGE},
};

/// Prefixes with the same attributes, by their octets: what export policy made is not in the interner.
type Made = BTreeMap<(View, Family, Vec<u8>), (Option<NextHop>, usize, Vec<Item>)>;

#[derive(Debug, Default)]
pub(super) struct Batch {
    withdrawn: BTreeMap<(View, Family), Vec<Item>>,
    announced: BTreeMap<(View, Family, AttrId), Vec<Item>>,
    made: Made,
}

impl Batch {
    /// Tells a path with these attributes; none: it is gone.
    pub(super) fn tell(&mut self, view: View, item: Item, set: Option<AttrId>) {
        let family = item.prefix.family();
        match set {
            Some(set) => self.announced.entry((view, family, set)).or_default().push(item),
            None => self.withdrawn.entry((view, family)).or_default().push(item),
        }
    }

    /// The same for attributes that are in no table.
    pub(super) fn tell_made(&mut self, view: View, item: Item, attributes: PathAttributes) {
        let family = item.prefix.family();
        let attributes = with_next_hop(attributes, family);
        let mut key = BytesMut::new();
        encode_block(&attributes, family, true, &mut key);
        let length = key.len();
        if let Some(next_hop) = &attributes.next_hop {
            encode_next_hop(next_hop, &mut key);
        }
        let entry = self.made.entry((view, family, key.to_vec()));
        entry.or_insert((attributes.next_hop, length, Vec::new())).2.push(item);
    }

    /// Hands out UPDATE messages, one behind the other, for each view.
    pub(super) fn write(
        self,
        interner: &Interner,
        packer: impl Fn(View) -> Packer,
        mut out: impl FnMut(View, &[u8]),
    ) {
        for ((view, family), items) in self.withdrawn {
            let mut messages = BytesMut::new();
            packer(view).withdraw(family, &items, &mut messages);
            out(view, &messages);
        }
        for ((view, family, set), items) in self.announced {
            let attributes = with_next_hop(interner.attributes(set), family);
            let mut bytes = BytesMut::new();
            encode_block(&attributes, family, true, &mut bytes);
            let block = Block { family, next_hop: attributes.next_hop, bytes: &bytes };
            out(view, &announce(packer(view), &block, &items));
        }
        for ((view, family, key), (next_hop, length, items)) in self.made {
            let bytes = key.get(..length).unwrap_or_default();
            let block = Block { family, next_hop, bytes };
            out(view, &announce(packer(view), &block, &items));
        }
    }
}

fn announce(packer: Packer, block: &Block<'_>, items: &[Item]) -> BytesMut {
    let mut messages = BytesMut::new();
    if packer.announce(block, items, &mut messages).is_err() {
        // Attributes that fill a message: they came in an extended one, and go as such.
        messages.clear();
        let packer = Packer { limit: MAX_EXTENDED_MESSAGE, ..packer };
        let _ = packer.announce(block, items, &mut messages);
    }
    messages
}

/// Routes of our own have no next hop, but messages must have one: none in particular.
fn with_next_hop(attributes: PathAttributes, family: Family) -> PathAttributes {
    let nowhere: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let next_hop = attributes.next_hop.or(Some(nowhere.into()));
    PathAttributes { next_hop, ..attributes }
}
