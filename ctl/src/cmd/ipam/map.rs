//! `voilectl ipam map`: pools as grids of blocks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use ipam::check::Finding;
use ipnet::IpNet;
use store::Store;

use super::{Block, fsck::Cluster, size};
use crate::{
    cmd::{Context, Outcome},
    output::{Screen, Table, count},
};

/// Rows of a grid; in a larger pool one cell stands for several blocks.
const ROWS: usize = 32;
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Runs the command.
///
/// # Errors
/// A pool that does not exist, and whatever the API server answers.
pub(super) async fn map<S: Store>(context: &Context<S>, wanted: Option<&str>) -> Result<Outcome> {
    let cluster = Cluster::load(context).await?;
    let pools = cluster.inventory.pools.iter();
    let pools: Vec<_> =
        pools.filter(|(_, pool)| wanted.is_none_or(|name| pool.metadata.name == name)).collect();
    if let (Some(name), true) = (wanted, pools.is_empty()) {
        bail!("there is no pool {name}; `voilectl get ippools` lists them");
    }
    let leaked: BTreeSet<_> =
        ipam::check::check(&cluster.state_of(&cluster.blocks(), &cluster.pools()))
            .into_iter()
            .filter_map(|finding| match finding {
                Finding::Leaked { address, .. } => Some(address),
                _ => None,
            })
            .collect();
    let owners: BTreeSet<&str> =
        cluster.inventory.blocks.iter().filter_map(|block| block.owner.as_deref()).collect();
    let letters: BTreeMap<&str, char> = owners.into_iter().zip(LETTERS.chars().cycle()).collect();
    let mut text = String::new();
    for (net, pool) in pools {
        let inside = cluster.inventory.blocks.iter().filter(|block| net.contains(&block.net));
        let blocks: Vec<&Block> = inside.collect();
        let prefix =
            ipam::pool::Pool::read(pool).map_or(net.prefix_len(), |pool| pool.block_prefix);
        text.push_str(&format!("pool {} {net}, blocks of /{prefix}\n", pool.metadata.name));
        text.push_str(&grid(*net, prefix, &blocks, &letters, &leaked, context.screen));
        text.push('\n');
    }
    text.push_str(&legend(&cluster, &letters, &leaked));
    text.push_str(
        "a cell: owner and tenths in use (. none, * all); - free, + several owners, ~ nobody's, ! a leak\n",
    );
    Ok(Outcome { text, finding: false })
}

/// What is in one cell.
#[derive(Clone, Debug, Default)]
struct Cell {
    owners: BTreeSet<Option<String>>,
    in_use: u128,
    total: u128,
    leaks: usize,
}

fn grid(
    net: IpNet,
    block_prefix: u8,
    blocks: &[&Block],
    letters: &BTreeMap<&str, char>,
    leaked: &BTreeSet<std::net::IpAddr>,
    screen: Screen,
) -> String {
    let label = if net.max_prefix_len() == 32 { 19 } else { 40 };
    // A power of two of cells in a row, two columns each.
    let room = screen.width.saturating_sub(label).max(2) / 2;
    let columns = 1_usize << room.ilog2().min(6);
    let most = (columns * ROWS).ilog2();
    let bits = u32::from(block_prefix.saturating_sub(net.prefix_len())).min(most);
    let cell_prefix = net.prefix_len() + u8::try_from(bits).unwrap_or(0);
    let mut cells: BTreeMap<IpNet, Cell> = BTreeMap::new();
    for block in blocks {
        let length = cell_prefix.min(block.net.prefix_len());
        let Ok(at) = IpNet::new(block.net.network(), length) else { continue };
        let cell = cells.entry(at.trunc()).or_default();
        cell.owners.insert(block.owner.clone());
        cell.in_use += block.in_use();
        cell.total += size(&block.net);
        cell.leaks += block.taken().filter(|taken| leaked.contains(&taken.address)).count();
    }
    let Ok(places) = net.subnets(cell_prefix) else { return String::new() };
    let places: Vec<IpNet> = places.collect();
    let mut text = String::new();
    if cell_prefix < block_prefix {
        let blocks = match block_prefix - cell_prefix {
            bits @ 0..=31 => (1_u64 << bits).to_string(),
            bits => format!("2^{bits}"),
        };
        text.push_str(&format!("one cell is /{cell_prefix}: {blocks} blocks\n"));
    }
    let mut free_rows = 0;
    for row in places.chunks(columns) {
        if row.iter().all(|place| !cells.contains_key(place)) {
            free_rows += 1;
            continue;
        }
        text.push_str(&skipped(std::mem::take(&mut free_rows)));
        let first = row.first().map(|net| net.network().to_string()).unwrap_or_default();
        text.push_str(&format!("{first:<label$}"));
        for place in row {
            text.push_str(&draw(cells.get(place), letters, screen.color));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.push_str(&skipped(free_rows));
    text
}

fn skipped(rows: usize) -> String {
    if rows == 0 { String::new() } else { format!("  ... {} free\n", count(rows, "row")) }
}

fn draw(cell: Option<&Cell>, letters: &BTreeMap<&str, char>, color: bool) -> String {
    let Some(cell) = cell else { return "- ".to_owned() };
    let owner = match (cell.owners.first(), cell.owners.len()) {
        (Some(Some(owner)), 1) => letters.get(owner.as_str()).copied().unwrap_or('?'),
        (Some(None), 1) => '~',
        _ => '+',
    };
    let tenths = (cell.in_use * 10).checked_div(cell.total).unwrap_or(0);
    let fill = match tenths {
        _ if cell.leaks > 0 => '!',
        0 if cell.in_use == 0 => '.',
        0..=9 => {
            u32::try_from(tenths).ok().and_then(|one| char::from_digit(one, 10)).unwrap_or('?')
        }
        _ => '*',
    };
    if !color {
        return format!("{owner}{fill}");
    }
    let shade = match tenths {
        _ if cell.leaks > 0 => 35,
        0..=4 => 32,
        5..=8 => 33,
        _ => 31,
    };
    format!("\u{1b}[{shade}m{owner}{fill}\u{1b}[0m")
}

fn legend(
    cluster: &Cluster,
    letters: &BTreeMap<&str, char>,
    leaked: &BTreeSet<std::net::IpAddr>,
) -> String {
    let mut table = Table::new(&["CELL", "OWNER", "BLOCKS", "IN USE", "BORROWED", "LEAKED"]);
    for (owner, letter) in letters {
        let own = cluster.inventory.blocks.iter();
        let own: Vec<&Block> = own.filter(|block| block.owner.as_deref() == Some(owner)).collect();
        let taken = || own.iter().flat_map(|block| block.taken());
        let borrowed =
            taken().filter(|one| one.attributes.get("node").is_some_and(|node| node != owner));
        let leaks = taken().filter(|one| leaked.contains(&one.address));
        table.row([
            letter.to_string(),
            (*owner).to_owned(),
            own.len().to_string(),
            taken().count().to_string(),
            borrowed.count().to_string(),
            leaks.count().to_string(),
        ]);
    }
    if table.is_empty() { "no blocks\n".to_owned() } else { table.render() }
}
