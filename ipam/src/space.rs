//! Which parts of the address space are taken by blocks: an index for finding free space and overlaps without asking the
//! datastore. Pure; a watch feeds it, and it may be behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::IpamBlock;
use ipnet::IpNet;
use store::Stored;

use crate::{
    UnixNanos, block, ordinal,
    pool::{Pool, first_block},
};

/// What the index knows of a block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// Which of the blocks it is that had this place one after the other.
    pub uid: Option<String>,
    /// Owner, such as `host:node-1`.
    pub affinity: Option<String>,
    /// When the owner claimed it.
    pub claimed: Option<UnixNanos>,
    /// Sequence number of the last write that was seen.
    pub sequence: u64,
    /// Free addresses, reserved ones among them.
    pub free: usize,
    /// Whether no address is assigned.
    pub empty: bool,
    /// Whether some address cools down.
    pub cooling: bool,
}

impl Summary {
    fn of(block: &IpamBlock) -> Self {
        let spec = &block.spec;
        Self {
            uid: block.metadata.uid.clone(),
            affinity: spec.affinity.clone(),
            claimed: spec.affinity_claim_time.as_deref().and_then(UnixNanos::parse_rfc3339),
            sequence: spec.sequence_number,
            free: spec.unallocated.len(),
            empty: block::is_empty(spec),
            cooling: spec.attributes.iter().any(|owner| owner.released_at.is_some()),
        }
    }

    /// A block that cannot be read: it takes up its space, and nothing can be done with it.
    fn unreadable() -> Self {
        Self {
            uid: None,
            affinity: Some("unreadable".to_owned()),
            claimed: None,
            sequence: 0,
            free: 0,
            empty: false,
            cooling: false,
        }
    }

    /// Returns whether something was seen of a block that a copy of it does not know: a later write, or another block in its place.
    /// Sequence numbers alone do not tell: the write that made a block may have been on its way for long.
    #[must_use]
    pub fn is_news_to(&self, copy: &Stored<IpamBlock>) -> bool {
        let is_another = self.uid.is_some() && self.uid != copy.metadata.uid;
        is_another || self.sequence > copy.spec.sequence_number
    }
}

/// The blocks that exist, in address order.
#[derive(Clone, Debug, Default)]
pub struct Space {
    blocks: BTreeMap<IpNet, Summary>,
    by_owner: BTreeMap<String, BTreeSet<IpNet>>,
    by_name: BTreeMap<String, IpNet>,
}

impl Space {
    /// Notes a block as it was seen. One that is being deleted counts as absent.
    pub fn put(&mut self, block: &IpamBlock) {
        let name = &block.metadata.name;
        self.remove(name);
        match block::cidr(&block.spec) {
            Some(net) if !block.spec.deleted => self.insert(name, net, Summary::of(block)),
            Some(_) => {}
            None => self.put_unreadable(name),
        }
    }

    /// Notes a block that cannot be read; its name tells what it takes up.
    pub fn put_unreadable(&mut self, name: &str) {
        self.remove(name);
        if let Some(net) = net_of_name(name) {
            self.insert(name, net, Summary::unreadable());
        }
    }

    fn insert(&mut self, name: &str, net: IpNet, summary: Summary) {
        if let Some(owner) = &summary.affinity {
            self.by_owner.entry(owner.clone()).or_default().insert(net);
        }
        self.by_name.insert(name.to_owned(), net);
        self.blocks.insert(net, summary);
    }

    /// Forgets a block.
    pub fn remove(&mut self, name: &str) {
        let Some(net) = self.by_name.remove(name) else { return };
        let owner = self.blocks.remove(&net).and_then(|summary| summary.affinity);
        if let Some(owner) = owner
            && let Some(own) = self.by_owner.get_mut(&owner)
        {
            own.remove(&net);
            if own.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    /// Returns what is known of a block.
    #[must_use]
    pub fn get(&self, net: &IpNet) -> Option<&Summary> {
        self.blocks.get(net)
    }

    /// Returns the blocks of an owner, in order.
    pub fn of_owner(&self, owner: &str) -> impl Iterator<Item = IpNet> + '_ {
        self.by_owner.get(owner).into_iter().flatten().copied()
    }

    /// Returns the blocks inside a prefix, in order.
    pub fn inside(&self, net: &IpNet) -> impl Iterator<Item = (&IpNet, &Summary)> {
        let ends = IpNet::new(net.network(), 0)
            .and_then(|first| Ok((first, IpNet::new(net.broadcast(), net.max_prefix_len())?)));
        let range = ends.ok().map(|(first, last)| self.blocks.range(first..=last));
        let net = *net;
        range.into_iter().flatten().filter(move |(inner, _)| net.contains(*inner))
    }

    /// Returns the blocks that contain a prefix, itself included, the largest first.
    fn around(&self, net: &IpNet) -> impl DoubleEndedIterator<Item = IpNet> {
        let shortest = u32::from(net.max_prefix_len()).saturating_sub(ordinal::MAX_BLOCK_BITS);
        let lengths = u8::try_from(shortest).unwrap_or_default()..=net.prefix_len();
        let network = net.network();
        let outer = move |length| IpNet::new(network, length).ok().map(|outer| outer.trunc());
        lengths.filter_map(outer).filter(|outer| self.blocks.contains_key(outer))
    }

    /// Returns a block that shares an address with a prefix and is not just that.
    #[must_use]
    pub fn overlapping(&self, net: &IpNet) -> Option<IpNet> {
        let around = self.around(net).find(|outer| outer != net);
        around.or_else(|| self.inside(net).map(|(inner, _)| *inner).find(|inner| inner != net))
    }

    /// Returns the block that holds an address, the smallest of several.
    #[must_use]
    pub fn of_address(&self, address: IpAddr) -> Option<IpNet> {
        self.around(&IpNet::from(address)).next_back()
    }

    /// Returns whether blocks take up all of a pool.
    #[must_use]
    pub fn is_full(&self, pool: &Pool) -> bool {
        let size = |net: &IpNet| ordinal::size(net).map(u128::from).unwrap_or_default();
        let taken: u128 = self.inside(&pool.cidr).map(|(net, _)| size(net)).sum();
        let bits = u32::from(pool.cidr.max_prefix_len()) - u32::from(pool.cidr.prefix_len());
        1_u128.checked_shl(bits).is_some_and(|all| taken >= all)
    }

    /// Finds space for a block: the first place of the node's order that overlaps no block of any size.
    #[must_use]
    pub fn free_block(
        &self,
        pool: &Pool,
        node: &str,
        attempt: u8,
        taken: impl Fn(&IpNet) -> Option<IpNet>,
    ) -> Option<IpNet> {
        if self.is_full(pool) {
            return None;
        }
        first_block(pool, node, attempt, |net| {
            let own = || self.blocks.contains_key(net).then_some(*net);
            taken(net).or_else(own).or_else(|| self.overlapping(net))
        })
    }
}

/// Reads the name of a block's object back: `10-244-0-64-26`, `fd00-10-244---122`.
fn net_of_name(name: &str) -> Option<IpNet> {
    let (address, length) = name.rsplit_once('-')?;
    let length = length.parse().ok()?;
    let address: IpAddr =
        address.replace('-', ".").parse().or_else(|_| address.replace('-', ":").parse()).ok()?;
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use api::{IpPool, IpPoolSpec};
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn put(space: &mut Space, text: &str, owner: Option<&str>) {
        let block = block::empty(&net(text), owner, UnixNanos(7));
        space.put(&block);
    }

    fn pool(cidr: &str, block_size: u8) -> Pool {
        let spec = IpPoolSpec {
            cidr: cidr.to_owned(),
            block_size: Some(block_size),
            ..Default::default()
        };
        Pool::read(&IpPool::new("p", spec)).unwrap()
    }

    #[test]
    fn blocks_of_any_size_are_seen() {
        let mut space = Space::default();
        put(&mut space, "10.0.0.64/26", Some("host:n"));
        put(&mut space, "10.0.1.0/28", None);
        put(&mut space, "fd00::/122", Some("host:n"));
        space.put_unreadable("10-0-2-0-26");
        space.put_unreadable("fd00--1-0-122");
        let overlap = |text: &str| space.overlapping(&net(text)).map(|net| net.to_string());
        assert_eq!(overlap("10.0.0.0/26"), None);
        assert_eq!(overlap("10.0.0.64/26"), None, "itself");
        assert_eq!(overlap("10.0.0.80/28").as_deref(), Some("10.0.0.64/26"));
        assert_eq!(overlap("10.0.0.0/24").as_deref(), Some("10.0.0.64/26"));
        assert_eq!(overlap("10.0.1.0/26").as_deref(), Some("10.0.1.0/28"));
        assert_eq!(overlap("10.0.2.32/27").as_deref(), Some("10.0.2.0/26"));
        assert_eq!(overlap("fd00::1:0/120").as_deref(), Some("fd00::1:0/122"));
        assert_eq!(space.of_address("10.0.0.127".parse().unwrap()), Some(net("10.0.0.64/26")));
        assert_eq!(space.of_address("10.0.0.128".parse().unwrap()), None);
        assert_eq!(space.of_owner("host:n").count(), 2);
        space.remove("10-0-0-64-26");
        assert_eq!(space.of_owner("host:n").collect::<Vec<_>>(), [net("fd00::/122")]);
    }

    #[test]
    fn sixty_five_thousand_blocks_are_cheap() {
        let pool = pool("10.0.0.0/8", 24);
        let mut space = Space::default();
        #[expect(clippy::disallowed_methods, reason = "what this test measures")]
        let start = Instant::now();
        for number in 0..65_536_u32 {
            let text = format!("10.{}.{}.0/24", number >> 8, number & 255);
            put(&mut space, &text, Some(&format!("host:n{}", number % 5000)));
        }
        let filled = start.elapsed();
        assert!(space.is_full(&pool));
        space.remove("10-77-3-0-24");
        let found = space.free_block(&pool, "node-1", 0, |_| None);
        assert_eq!(found, Some(net("10.77.3.0/24")));
        let searched = start.elapsed() - filled;
        // Generous: a debug build on a busy machine. A quadratic search takes minutes.
        assert!(searched < Duration::from_secs(10), "{searched:?}");
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_plain_list(
            blocks in prop::collection::vec((0..256_u32, 24..=32_u8), 0..24),
            probe in (0..256_u32, 22..=32_u8),
        ) {
            let net = |(host, length): (u32, u8)| {
                IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + host).into(), length).unwrap().trunc()
            };
            let (mut space, mut list) = (Space::default(), BTreeSet::new());
            for one in blocks {
                put(&mut space, &net(one).to_string(), None);
                list.insert(net(one));
            }
            let probe = net(probe);
            let plain = list.iter().any(|one| *one != probe && ordinal::overlap(one, &probe));
            prop_assert_eq!(space.overlapping(&probe).is_some(), plain);
            let holder = space.of_address(probe.network());
            prop_assert_eq!(holder.is_some(), list.iter().any(|one| one.contains(&probe.network())));
            let inside: Vec<_> = space.inside(&probe).map(|(net, _)| *net).collect();
            let plain: Vec<_> = list.iter().filter(|one| probe.contains(*one)).copied().collect();
            prop_assert_eq!(inside, plain);
        }
    }
}
