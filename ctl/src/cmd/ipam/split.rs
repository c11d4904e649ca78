//! `voilectl ipam split`: a pool becomes several smaller ones, and no block changes.

use anyhow::{Context as _, Result, bail};
use api::{IpPool, Resource as _};
use ipnet::IpNet;
use store::{DeletePreconditions, Store, Stored};

use super::report::is_locked;
use crate::{
    cli::IpamSplitArgs,
    cmd::{Context, Outcome},
};

/// Runs the command.
///
/// # Errors
/// A pool that does not exist or cannot be split, a datastore that is not locked, and whatever the API server answers.
pub(super) async fn split<S: Store>(context: &Context<S>, args: &IpamSplitArgs) -> Result<Outcome> {
    let pools = context.list::<IpPool>().await?.items;
    let wanted = |pool: &Stored<IpPool>| match (&args.name, &args.cidr) {
        (Some(name), _) => pool.metadata.name == *name,
        (None, cidr) => Some(&pool.spec.cidr) == cidr.as_ref(),
    };
    let asked = args.name.as_ref().or(args.cidr.as_ref()).cloned().unwrap_or_default();
    let Some(mut old) = pools.into_iter().find(wanted) else {
        bail!("there is no pool {asked}; `voilectl get ippools` lists them");
    };
    let parts = divide(&old, args.parts)?;
    if !is_locked(context).await? {
        bail!(
            "the datastore is not locked; set datastoreReady: false in ClusterInformation default first, so that no address is \
             assigned meanwhile"
        );
    }
    old.spec.disabled = true;
    let old = context.store.update(&old).await.context("cannot disable the pool")?;
    let mut text = String::new();
    for (number, net) in parts.iter().enumerate() {
        let mut spec = old.spec.clone();
        spec.cidr = net.to_string();
        spec.disabled = false;
        let stem: String = old.metadata.name.chars().take(240).collect();
        let mut pool = IpPool::new(format!("split-{stem}-{number}"), spec);
        pool.metadata.labels.clone_from(&old.metadata.labels);
        context.store.create(&pool).await.with_context(|| {
            format!(
                "cannot create {}; pool {} is disabled and still there: enable it, delete split-* and try again",
                pool.metadata.name, old.metadata.name
            )
        })?;
        text.push_str(&format!("IPPool/{} created with {net}\n", pool.metadata.name));
    }
    let preconditions =
        DeletePreconditions { uid: old.meta().uid.clone(), revision: Some(old.revision()) };
    context.store.delete::<IpPool>(&old.key(), &preconditions).await?;
    text.push_str(&format!("IPPool/{} deleted\n", old.metadata.name));
    Ok(Outcome::ok(text))
}

fn divide(pool: &IpPool, parts: u32) -> Result<Vec<IpNet>> {
    let net = pool.spec.net()?;
    if parts < 2 || !parts.is_power_of_two() {
        bail!("{parts} is not a power of two above 1");
    }
    let length = net.prefix_len() + u8::try_from(parts.ilog2())?;
    let block = ipam::pool::Pool::read(pool).map_err(anyhow::Error::msg)?.block_prefix;
    if length > block {
        bail!("{parts} parts of {net} would be smaller than its blocks (/{block})");
    }
    Ok(net.subnets(length)?.collect())
}
