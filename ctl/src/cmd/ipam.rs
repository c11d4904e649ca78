//! `voilectl ipam`: who has which addresses.

mod change;
mod explain;
pub(super) mod fsck;
mod map;
mod repair;
mod report;
mod show;
mod split;

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use api::{IpPool, IpReservation, IpamBlock, net::parse_net};
use ipnet::IpNet;
use store::{Listing, Store};

use super::{Context, Outcome};
use crate::cli::IpamCommand;

/// Runs `voilectl ipam`.
///
/// # Errors
/// Why it could not be done.
pub async fn run<S: Store>(context: &Context<S>, command: &IpamCommand) -> Result<Outcome> {
    match command {
        IpamCommand::Show(args) => show::show(context, args).await,
        IpamCommand::Check { repair: true } => repair::repair(context).await,
        IpamCommand::Check { repair: false } => fsck::check(context).await,
        IpamCommand::Release(args) => match args.ip {
            Some(ip) => change::release(context, ip).await,
            None => report::release(context, &args.from_report, args.force).await,
        },
        IpamCommand::Split(args) => split::split(context, args).await,
        IpamCommand::Configure(args) => change::configure(context, args).await,
        IpamCommand::Map { pool } => map::map(context, pool.as_deref()).await,
        IpamCommand::Explain { pod } => explain::explain(context, pod).await,
    }
}

/// A block that could be read.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Its range.
    pub(super) net: IpNet,
    /// Node that owns it (`host:` left away), or another owner as written.
    pub(super) owner: Option<String>,
    /// The object.
    pub(super) object: IpamBlock,
}

/// One address that is taken.
#[derive(Clone, Debug)]
pub(super) struct Taken<'a> {
    pub(super) address: IpAddr,
    pub(super) handle: Option<&'a str>,
    pub(super) attributes: &'a BTreeMap<String, String>,
    pub(super) released_at: Option<&'a str>,
    pub(super) is_of_machine: bool,
}

impl Block {
    fn new(object: IpamBlock) -> Result<Self, String> {
        let net = parse_net(&object.spec.cidr).map_err(|error| error.to_string())?;
        let owner = object.spec.affinity.as_deref().filter(|owner| !owner.is_empty());
        let owner = owner.map(|owner| owner.strip_prefix("host:").unwrap_or(owner).to_owned());
        Ok(Self { net, owner, object })
    }

    /// Number of addresses that are taken.
    pub(super) fn in_use(&self) -> u128 {
        u128::try_from(self.object.spec.allocations.iter().flatten().count()).unwrap_or(u128::MAX)
    }

    /// Addresses that are taken, in order.
    pub(super) fn taken(&self) -> impl Iterator<Item = Taken<'_>> {
        ipam::block::assigned(&self.object.spec).map(|(address, attribute)| Taken {
            address,
            handle: attribute.handle_id.as_deref(),
            attributes: &attribute.secondary,
            released_at: attribute.released_at.as_deref(),
            is_of_machine: ipam::collector::is_of_machine(attribute),
        })
    }
}

impl Taken<'_> {
    /// `pod shop/web-1`, a virtual machine, a service, a tunnel's type, or the handle.
    pub(super) fn owner(&self) -> String {
        let attribute = |name: &str| self.attributes.get(name).map(String::as_str);
        if let (Some(namespace), Some(name)) = (attribute("namespace"), attribute("vmi-name")) {
            let pod = attribute("pod").unwrap_or_default();
            return format!("virtual machine {namespace}/{name} in pod {pod}");
        }
        if self.is_of_machine && self.attributes.is_empty() {
            return "a stopped virtual machine".to_owned();
        }
        match (attribute("namespace"), attribute("pod")) {
            (Some(namespace), Some(pod)) => return format!("pod {namespace}/{pod}"),
            (None, Some(pod)) => return format!("pod {pod}"),
            _ => {}
        }
        if let (Some(namespace), Some(service)) = (attribute("namespace"), attribute("service")) {
            return format!("service {namespace}/{service}");
        }
        let other = attribute("service").or_else(|| attribute("type")).or(self.handle);
        other.unwrap_or("nobody (no attributes)").to_owned()
    }
}

/// Number of addresses of a prefix; `u128::MAX` stands for `::/0`.
fn size(net: &IpNet) -> u128 {
    1u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX)
}

/// Pools, blocks and reservations, and what could not be read of them.
pub(super) struct Inventory {
    pub(super) pools: Vec<(IpNet, IpPool)>,
    pub(super) blocks: Vec<Block>,
    /// Reserved ranges, without overlaps.
    pub(super) reserved: Vec<IpNet>,
    pub(super) problems: Vec<String>,
}

impl Inventory {
    pub(super) async fn load<S: Store>(context: &Context<S>) -> Result<Self> {
        let mut problems = Vec::new();
        let mut pools = Vec::new();
        for pool in items(context.list::<IpPool>().await?, "IPPool", &mut problems) {
            match parse_net(&pool.spec.cidr) {
                Ok(net) => pools.push((net, pool)),
                Err(error) => {
                    problems.push(format!("IPPool {}: cidr: {error}", pool.metadata.name))
                }
            }
        }
        let mut blocks = Vec::new();
        for block in items(context.list::<IpamBlock>().await?, "IPAMBlock", &mut problems) {
            let name = block.metadata.name.clone();
            // A block that is being deleted counts as absent (libcalico-go ipam_block.go).
            if block.spec.deleted {
                continue;
            }
            match Block::new(block) {
                Ok(block) => blocks.push(block),
                Err(error) => problems.push(format!("IPAMBlock {name}: cidr: {error}")),
            }
        }
        let mut reserved = Vec::new();
        for reservation in
            items(context.list::<IpReservation>().await?, "IPReservation", &mut problems)
        {
            for cidr in &reservation.spec.reserved_cidrs {
                match parse_net(cidr) {
                    Ok(net) => reserved.push(net),
                    Err(error) => problems.push(format!(
                        "IPReservation {}: reservedCIDRs: {error}",
                        reservation.metadata.name
                    )),
                }
            }
        }
        pools.sort_by_key(|(net, _)| *net);
        blocks.sort_by_key(|block| block.net);
        Ok(Self { pools, blocks, reserved: IpNet::aggregate(&reserved), problems })
    }

    /// The block of an address; the smallest when several overlap.
    pub(super) fn block_of(&self, address: IpAddr) -> Option<&Block> {
        let fits = self.blocks.iter().filter(|block| block.net.contains(&address));
        fits.max_by_key(|block| block.net.prefix_len())
    }

    /// The pool of an address.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<&IpPool> {
        let fits = self.pools.iter().filter(|(net, _)| net.contains(&address));
        fits.max_by_key(|(net, _)| net.prefix_len()).map(|(_, pool)| pool)
    }
}

fn items<R: api::Resource>(listing: Listing<R>, kind: &str, problems: &mut Vec<String>) -> Vec<R> {
    let malformed = listing.malformed.iter();
    problems.extend(malformed.map(|(key, why)| format!("{kind} {key}: cannot be read: {why}")));
    listing.items.into_iter().map(store::Stored::into_inner).collect()
}

#[cfg(test)]
mod tests;
