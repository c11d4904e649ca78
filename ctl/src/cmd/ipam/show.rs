//! `voilectl ipam show`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use api::{IpamConfiguration, IpamConfigurationSpec, Key};
use ipnet::IpNet;
use serde::Serialize;
use store::{Store, StoreError};

use super::{Block, Inventory, size};
use crate::{
    cli::IpamShowArgs,
    cmd::{Context, Outcome},
    output::{Table, machine},
};

/// Use of a pool or block, as `-o json` shows it. Numbers are texts where they can pass 2^53.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    grouping: &'static str,
    cidr: IpNet,
    total: u128,
    in_use: u128,
    reserved: u128,
    free: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// An address outside its node's own blocks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Borrowed {
    ip: IpAddr,
    borrowing_node: String,
    block: IpNet,
    block_owner: String,
    r#type: &'static str,
    allocated_to: String,
}

/// Runs the command.
///
/// # Errors
/// An address in no pool, and whatever the API server answers.
pub(super) async fn show<S: Store>(context: &Context<S>, args: &IpamShowArgs) -> Result<Outcome> {
    if args.show_configuration {
        return configuration(context).await;
    }
    let inventory = Inventory::load(context).await?;
    if let Some(ip) = args.ip {
        return one(context, &inventory, ip);
    }
    if args.show_borrowed {
        return borrowed(context, &inventory);
    }
    let rows = uses(&inventory, args.show_blocks);
    let finding = !inventory.problems.is_empty();
    if let Some(text) = machine(context.format, &rows)? {
        return Ok(Outcome { text, finding });
    }
    let mut text = if rows.is_empty() {
        "no IP pools; create one: voilectl apply -f pool.yaml\n".to_owned()
    } else {
        table(&rows, args.show_blocks)
    };
    for problem in &inventory.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    Ok(Outcome { text, finding })
}

fn uses(inventory: &Inventory, show_blocks: bool) -> Vec<Use> {
    let mut rows = Vec::new();
    for (net, _) in &inventory.pools {
        let blocks: Vec<&Block> =
            inventory.blocks.iter().filter(|block| net.contains(&block.net)).collect();
        let in_use = blocks.iter().map(|block| block.in_use()).sum();
        rows.push(row("IP Pool", *net, in_use, None, inventory));
        if show_blocks {
            rows.extend(blocks.into_iter().map(|block| block_row(block, inventory)));
        }
    }
    if show_blocks {
        let outside = inventory.blocks.iter();
        let outside = outside
            .filter(|block| !inventory.pools.iter().any(|(net, _)| net.contains(&block.net)));
        rows.extend(outside.map(|block| block_row(block, inventory)));
    }
    rows
}

fn block_row(block: &Block, inventory: &Inventory) -> Use {
    let owner = block.owner.clone().unwrap_or_else(|| "(nobody)".to_owned());
    row("Block", block.net, block.in_use(), Some(owner), inventory)
}

fn row(
    grouping: &'static str,
    cidr: IpNet,
    in_use: u128,
    owner: Option<String>,
    inventory: &Inventory,
) -> Use {
    let total = size(&cidr);
    let reserved =
        inventory.reserved.iter().map(|net| overlap(net, &cidr)).sum::<u128>().min(total);
    let free = total.saturating_sub(in_use).saturating_sub(reserved);
    Use { grouping, cidr, total, in_use, reserved, free, owner }
}

/// Number of addresses that two prefixes share.
fn overlap(one: &IpNet, other: &IpNet) -> u128 {
    if one.contains(other) {
        size(other)
    } else if other.contains(one) {
        size(one)
    } else {
        0
    }
}

fn table(rows: &[Use], owners: bool) -> String {
    let mut headers =
        vec!["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"];
    if owners {
        headers.push("OWNER");
    }
    let mut table = Table::new(&headers);
    for row in rows {
        let share = |part| format!("{} ({}%)", number(part), percent(part, row.total));
        let mut cells = vec![
            row.grouping.to_owned(),
            row.cidr.to_string(),
            number(row.total),
            share(row.in_use),
            share(row.reserved),
            share(row.free),
        ];
        if owners {
            cells.push(row.owner.clone().unwrap_or_default());
        }
        table.row(cells);
    }
    table.render()
}

/// Exact up to a billion, above that the power of two: nobody reads 20 digits.
fn number(value: u128) -> String {
    if value < 1_000_000_000 {
        value.to_string()
    } else {
        format!("~2^{}", (value + value / 2).ilog2())
    }
}

fn percent(part: u128, total: u128) -> u128 {
    part.saturating_mul(100).saturating_add(total / 2).checked_div(total).unwrap_or(0)
}

fn one<S: Store>(context: &Context<S>, inventory: &Inventory, ip: IpAddr) -> Result<Outcome> {
    let Some(pool) = inventory.pool_of(ip) else {
        bail!("{ip} is in no IP pool; `voilectl get ippools` lists them");
    };
    let block = inventory.block_of(ip);
    let taken = block.and_then(|block| block.taken().find(|taken| taken.address == ip));
    let owner = block.and_then(|block| block.owner.clone());
    let value = serde_json::json!({
        "ip": ip,
        "inUse": taken.is_some(),
        "pool": pool.metadata.name,
        "block": block.map(|block| block.net),
        "blockOwner": owner,
        "handle": taken.as_ref().and_then(|taken| taken.handle),
        "attributes": taken.as_ref().map(|taken| taken.attributes),
        "releasedAt": taken.as_ref().and_then(|taken| taken.released_at),
    });
    if let Some(text) = machine(context.format, &value)? {
        return Ok(Outcome::ok(text));
    }
    let rests = taken.as_ref().and_then(|taken| taken.released_at);
    let mut text = match (&taken, rests) {
        (_, Some(time)) => {
            format!("IP {ip} is nobody's: it was released at {time} and cools down\n")
        }
        (Some(taken), None) => format!("IP {ip} is in use by {}\n", taken.owner()),
        (None, None) => format!("IP {ip} is not assigned\n"),
    };
    text.push_str(&format!("Pool:   {} ({})\n", pool.metadata.name, pool.spec.cidr));
    if let Some(block) = block {
        text.push_str(&format!(
            "Block:  {} of {}\n",
            block.net,
            owner.as_deref().unwrap_or("nobody")
        ));
    }
    if let Some(taken) = taken.filter(|_| rests.is_none()) {
        text.push_str(&format!("Handle: {}\n", taken.handle.unwrap_or("-")));
        for (name, value) in taken.attributes {
            text.push_str(&format!("  {name}: {value}\n"));
        }
    }
    Ok(Outcome::ok(text))
}

fn borrowed<S: Store>(context: &Context<S>, inventory: &Inventory) -> Result<Outcome> {
    let mut rows = Vec::new();
    for block in &inventory.blocks {
        for taken in block.taken() {
            let Some(node) = taken.attributes.get("node") else { continue };
            if block.owner.as_deref() == Some(node) {
                continue;
            }
            let kind = if taken.attributes.contains_key("pod") { "pod" } else { "tunnel" };
            rows.push(Borrowed {
                ip: taken.address,
                borrowing_node: node.clone(),
                block: block.net,
                block_owner: block.owner.clone().unwrap_or_else(|| "(nobody)".to_owned()),
                r#type: kind,
                allocated_to: taken.owner(),
            });
        }
    }
    if let Some(text) = machine(context.format, &rows)? {
        return Ok(Outcome::ok(text));
    }
    if rows.is_empty() {
        return Ok(Outcome::ok("no borrowed addresses\n"));
    }
    let mut table =
        Table::new(&["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"]);
    for row in rows {
        table.row([
            row.ip.to_string(),
            row.borrowing_node,
            row.block.to_string(),
            row.block_owner,
            row.r#type.to_owned(),
            row.allocated_to,
        ]);
    }
    Ok(Outcome::ok(table.render()))
}

async fn configuration<S: Store>(context: &Context<S>) -> Result<Outcome> {
    let spec = match context.store.get::<IpamConfiguration>(&Key::cluster("default")).await {
        Ok(stored) => stored.into_inner().spec,
        Err(StoreError::NotFound { .. }) => IpamConfigurationSpec::default(),
        Err(error) => return Err(error.into()),
    };
    if let Some(text) = machine(context.format, &spec)? {
        return Ok(Outcome::ok(text));
    }
    let mut table = Table::new(&["PROPERTY", "VALUE"]);
    let blocks = if spec.max_blocks_per_host == 0 { 20 } else { spec.max_blocks_per_host };
    for (name, value) in [
        ("StrictAffinity", spec.strict_affinity.to_string()),
        ("AutoAllocateBlocks", spec.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", blocks.to_string()),
        ("IPCooldownSeconds", spec.ip_cooldown_seconds.unwrap_or(0).to_string()),
        (
            "KubeVirtVMAddressPersistence",
            // On unless disabled, as for Calico's CNI plugin.
            spec.kube_virt_vm_address_persistence
                .map_or_else(|| "Enabled".to_owned(), |state| format!("{state:?}")),
        ),
    ] {
        table.row([name.to_owned(), value]);
    }
    Ok(Outcome::ok(table.render()))
}
