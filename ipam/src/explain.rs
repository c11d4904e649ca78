//! Where a pool's next address for a node would come from, or why there is none. Pure; for people.

use std::fmt;

use api::IpamConfigurationSpec;
use ipnet::IpNet;

use crate::{Family, affinity, pool::Pool, pool::Reservations, space::Space};

/// Blocks per host where the configuration says 0 (Calico `ipam.go`).
pub const DEFAULT_MAX_BLOCKS: usize = 20;

/// Returns how many blocks of a family a node may own.
#[must_use]
pub fn max_blocks(configuration: &IpamConfigurationSpec) -> usize {
    match usize::try_from(configuration.max_blocks_per_host).unwrap_or(usize::MAX) {
        0 => DEFAULT_MAX_BLOCKS,
        most => most,
    }
}

/// Where the next address comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A block of the node.
    Own {
        /// The block.
        block: IpNet,
        /// Its free addresses.
        free: usize,
    },
    /// A block that nobody has.
    Claim(IpNet),
    /// A block of another node, or of nobody.
    Borrow {
        /// The block.
        block: IpNet,
        /// Whose it is.
        owner: String,
    },
    /// Nowhere.
    None(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { block, free } => {
                write!(f, "the node's own block {block} has {free} free addresses")
            }
            Self::Claim(block) => write!(f, "the node would claim block {block}"),
            Self::Borrow { block, owner } => {
                write!(f, "the node would borrow from block {block} of {owner}")
            }
            Self::None(why) => f.write_str(why),
        }
    }
}

/// Returns where a pool's next address for a node comes from, in the order in which the allocator looks.
#[must_use]
pub fn source(
    pool: &Pool,
    node: &str,
    space: &Space,
    configuration: &IpamConfigurationSpec,
    reservations: &Reservations,
) -> Source {
    let own = affinity::of_host(node);
    let inside = || space.inside(&pool.cidr);
    let is_whole =
        |net: &IpNet| reservations.covering(net).is_none() && space.overlapping(net).is_none();
    let roomy = inside().find(|(net, summary)| {
        summary.affinity.as_deref() == Some(&own) && summary.free > 0 && is_whole(net)
    });
    if let Some((net, summary)) = roomy {
        return Source::Own { block: *net, free: summary.free };
    }
    let family = pool.family();
    let owned = space.of_owner(&own).filter(|net| Family::of(net.addr()) == family).count();
    let most = max_blocks(configuration);
    let mut why = "has no free block".to_owned();
    if !configuration.auto_allocate_blocks {
        why = "may claim no blocks, see autoAllocateBlocks".to_owned();
    } else if owned >= most {
        return Source::None(format!("node {node} has {owned} blocks, see maxBlocksPerHost"));
    } else if let Some(net) = space.free_block(pool, node, 0, |net| reservations.covering(net)) {
        return Source::Claim(net);
    }
    if configuration.strict_affinity {
        why.push_str(", and strictAffinity forbids to borrow");
        return Source::None(why);
    }
    let lender = inside().find(|(net, summary)| {
        let is_node = summary.affinity.as_deref().is_none_or(|owner| owner.starts_with("host:"));
        summary.free > 0 && is_node && is_whole(net)
    });
    match lender {
        Some((net, summary)) => {
            let owner = summary.affinity.as_deref().unwrap_or("nobody");
            let owner = owner.strip_prefix("host:").unwrap_or(owner).to_owned();
            Source::Borrow { block: *net, owner }
        }
        None => Source::None(format!("{why}, and no address to borrow")),
    }
}
