//! What can be typed. Definitions only; each noun's work is in `cmd/`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Output;

/// Looks at, explains and changes a Voile network.
#[derive(Debug, Parser)]
#[command(
    name = "voilectl",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
    voilectl get nodes                       nodes with their addresses and AS numbers\n  \
    voilectl bgp summary                     every session of every node\n  \
    voilectl bgp route 10.244.7.9            where it goes, why, and who is told\n  \
    voilectl bgp rib adj-out worker-1/tor-a  what a peer is told\n  \
    voilectl bgp monitor                     sessions and routes as they change\n  \
    voilectl ipam show --show-blocks         who owns which block\n  \
    voilectl policy show                     policies and the pods they select\n  \
    voilectl policy explain a/x b/y:5432     which rule decides, and why\n  \
    voilectl apply -f pool.yaml\n\n\
    Installed as `kubectl-voile` on the PATH (a link to voilectl is enough) it is also `kubectl voile`.\n\n\
    Exit code: 0 ok, 1 a finding (a session down, a leak, a denied flow), 2 could not check."
)]
pub struct Cli {
    /// Where to connect
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Kubeconfig file; default: $KUBECONFIG, then ~/.kube/config, then the pod's service account
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig file; default: its current one
    #[arg(long, global = true, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,

    /// Output format: table, wide, json, yaml or name; for `ipam check` also a file for its report, such as report.json
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// The verbs and nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(after_help = "Examples:\n  voilectl get nodes\n  voilectl get ippools -o wide\n  \
        voilectl get networkpolicies.networking.k8s.io -A\n  voilectl get bgppeer tor-a -o yaml")]
    /// Show resources (nodes, ippools, bgppeers, networkpolicies, workloadendpoints, ...)
    Get(GetArgs),
    #[command(
        after_help = "Examples:\n  voilectl apply -f pool.yaml\n  voilectl apply -f manifests/ --dry-run\n  \
        cat peer.yaml | voilectl apply -f -"
    )]
    /// Create resources, or change those that exist
    Apply(FileArgs),
    /// Create resources; fails for those that exist
    Create(FileArgs),
    /// Replace resources; fails for those that do not exist
    Replace(FileArgs),
    #[command(
        after_help = "Example:\n  voilectl patch ippool pool-1 --patch '{\"spec\":{\"disabled\":true}}'"
    )]
    /// Merge-patch a resource
    Patch(PatchArgs),
    #[command(
        after_help = "Examples:\n  voilectl delete bgppeer tor-a\n  voilectl delete -f pool.yaml --ignore-not-found"
    )]
    /// Delete resources
    Delete(DeleteArgs),
    #[command(after_help = "Example:\n  voilectl label node worker-1 rack=r2 spare-")]
    /// Set or remove (`key-`) labels of a resource
    Label(LabelArgs),
    #[command(after_help = "Example:\n  voilectl validate -f manifests/")]
    /// Check manifests without sending them anywhere
    Validate(FileArgs),
    /// BGP sessions and routes
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Address management
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Network policy
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// One page about the whole cluster: nodes, sessions, blocks, policy
    Status,
    /// Versions of this program and of the daemons
    Version,
    /// Print a completion script
    Completion {
        /// Shell to complete in
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Arguments of `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Kind, as singular, plural or short name
    pub kind: String,
    /// Names; all when none is given
    pub names: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Arguments of the verbs that read manifests.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// Manifest file, folder, or `-` for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Say what would be done, do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `patch`.
#[derive(Args, Debug)]
pub struct PatchArgs {
    /// Kind
    pub kind: String,
    /// Name
    pub name: String,
    /// Namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// JSON or YAML merge patch, such as '{"spec":{"disabled":true}}'
    #[arg(short, long)]
    pub patch: String,
}

/// Arguments of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Kind
    pub kind: Option<String>,
    /// Names
    pub names: Vec<String>,
    /// Manifest file, folder, or `-`
    #[arg(short, long = "filename", value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Do not fail for what does not exist
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// Arguments of `label`.
#[derive(Args, Debug)]
pub struct LabelArgs {
    /// Kind
    pub kind: String,
    /// Name
    pub name: String,
    /// `key=value` to set, `key-` to remove
    #[arg(required = true)]
    pub labels: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// `voilectl bgp`.
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    #[command(
        after_help = "Examples:\n  voilectl bgp summary\n  voilectl bgp summary --failed\n  \
        voilectl bgp summary --node worker-1 -o json\n\n\
        Exit code 1 when a session is not Established or a node does not report."
    )]
    /// Every session of every node: state, since when, prefixes in and out, why it is down
    Summary {
        /// Only sessions that are not Established
        #[arg(long)]
        failed: bool,
        /// Only this node
        #[arg(long)]
        node: Option<String>,
    },
    #[command(after_help = "Examples:\n  voilectl bgp route 10.244.7.0/24\n  \
        voilectl bgp route 10.244.7.9 --node worker-1      the prefix that packets to this address follow\n  \
        voilectl bgp route fd00:10:244::/64 -o wide        with every attribute, and what rules changed\n  \
        voilectl bgp route 10.244.7.0/24 -o json | jq '.[].route.kernel'\n\n\
        Exit code 1 when a node has no route, its kernel refused it, or it does not answer.")]
    /// Why a prefix goes where it goes: every path with the step that ranked it, rules of import and export, who is told,
    /// and what the kernel has
    Route {
        /// The prefix, or an address
        #[arg(value_name = "PREFIX|ADDRESS", value_parser = crate::cmd::bgp::route::destination)]
        destination: String,
        /// Ask this node only; all otherwise
        #[arg(long)]
        node: Option<String>,
    },
    #[command(
        visible_aliases = ["neighbor", "peers", "peer"],
        after_help = "Examples:\n  voilectl bgp neighbors worker-1\n  \
        voilectl bgp neighbors worker-1/10.0.1.1           one session, by address or by name\n  \
        voilectl bgp neighbors '*/tor-a' -o json           that peer of every node\n\n\
        Exit code 1 when a session is not Established or a node does not answer."
    )]
    /// Sessions in full: what was negotiated, counters, and the history with the cause of every change
    Neighbors {
        /// Node, or NODE/PEER; every session of every node otherwise
        #[arg(value_name = "NODE[/PEER]")]
        which: Option<String>,
    },
    #[command(after_help = "Examples:\n  \
        voilectl bgp rib loc worker-1                           what it uses, and what the kernel has\n  \
        voilectl bgp rib adj-in worker-1/tor-a                  what tor-a sent, and what import policy said\n  \
        voilectl bgp rib adj-in worker-1/tor-a --post-policy    what policy let in, as it changed it\n  \
        voilectl bgp rib adj-out worker-1/tor-a 10.244.0.0/16   what tor-a is told of these\n  \
        voilectl bgp rib adj-out '*/tor-a' --pre-policy         also what it is not told, and why\n  \
        voilectl bgp rib loc -o json | jq -r '.[].prefix'\n\n\
        Exit code 1 when a node does not answer or has no such peer.")]
    /// The tables of the speakers: what peers told them (Adj-RIB-In), what they use (Loc-RIB), what they tell (Adj-RIB-Out)
    Rib(BgpRibArgs),
    #[command(after_help = "Examples:\n  \
        voilectl bgp diff worker-1                  against the blocks of the cluster\n  \
        voilectl bgp diff worker-1 worker-2         two nodes\n  \
        voilectl bgp diff worker-1 10.244.0.0/16\n\n\
        Exit code 1 when there is a difference.")]
    /// What two nodes see differently; with one node, what it lacks or has too much, going by the blocks of the cluster
    Diff {
        /// One node or two, and perhaps a prefix
        #[arg(value_name = "NODE|PREFIX", required = true, num_args = 1..=3)]
        which: Vec<String>,
    },
    #[command(after_help = "Examples:\n  \
        voilectl bgp monitor\n  \
        voilectl bgp monitor worker-1 10.244.7.0/24\n  \
        voilectl bgp monitor --for 60s -o json | jq -c .sessions[]")]
    /// Changes of sessions and of best paths as they happen, until Ctrl-C
    Monitor {
        /// Only this node, sessions of this peer, routes within this prefix
        #[arg(value_name = "NODE[/PEER]|PREFIX", num_args = 0..=2)]
        which: Vec<String>,
        /// End after this time
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        lasting: Option<Duration>,
    },
    #[command(after_help = "Examples:\n  \
        voilectl bgp clear worker-1/tor-a --text 'new line card'   ends the session and begins anew\n  \
        voilectl bgp clear worker-1/tor-a --soft out               sends it everything again\n  \
        voilectl bgp clear '*/tor-a' --soft in                     every node asks tor-a to send everything again\n\n\
        Exit code 1 when a node did not do it.")]
    /// End the session with a peer and begin anew; with --soft only exchange routes again
    Clear {
        /// Which session, by name or address of the peer
        #[arg(value_name = "NODE/PEER")]
        which: String,
        /// Keep the session: ask the peer for its routes again (in), or send it ours (out)
        #[arg(long, value_name = "in|out")]
        soft: Option<Direction>,
        /// What to tell the operator of the peer (RFC 9003)
        #[arg(long, conflicts_with = "soft")]
        text: Option<String>,
    },
    #[command(after_help = "Example:\n  voilectl bgp refresh worker-1/tor-a")]
    /// Ask a peer to send everything again; the same as `clear --soft in`
    Refresh {
        /// Which session, by name or address of the peer
        #[arg(value_name = "NODE/PEER")]
        which: String,
    },
}

/// Arguments of `bgp rib`.
#[derive(Args, Clone, Debug)]
pub struct BgpRibArgs {
    /// Which table
    pub table: RibTable,
    /// Only this node, or NODE/PEER; only this prefix and those within
    #[arg(value_name = "NODE[/PEER]|PREFIX", num_args = 0..=2)]
    pub which: Vec<String>,
    /// Before policy, with what it stops; adj-in is shown so by default
    #[arg(long, conflicts_with = "post_policy")]
    pub pre_policy: bool,
    /// After policy, with what it changed; adj-out is shown so by default
    #[arg(long)]
    pub post_policy: bool,
}

/// A table of a speaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum RibTable {
    /// What peers told the node
    AdjIn,
    /// What the node uses
    Loc,
    /// What the node tells its peers
    AdjOut,
}

/// A direction of routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Direction {
    /// From the peer
    In,
    /// To the peer
    Out,
}

fn duration(text: &str) -> Result<Duration, String> {
    api::net::parse_duration(text)
        .ok_or_else(|| format!("'{text}' is no duration; write 90s, 15m or 1h30m"))
}

/// `voilectl ipam`.
#[derive(Debug, Subcommand)]
pub enum IpamCommand {
    /// Use of pools and blocks
    #[command(
        after_help = "Examples:\n  voilectl ipam show\n  voilectl ipam show --show-blocks\n  \
        voilectl ipam show --ip 10.244.3.17"
    )]
    Show(IpamShowArgs),
    /// Look for leaks, duplicates, overlaps and disagreements
    #[command(
        after_help = "Examples:\n  voilectl ipam check && echo clean\n  voilectl ipam check -o json\n  \
        voilectl ipam check -o report.json      for `ipam release --from-report`, also calicoctl's\n  \
        voilectl ipam check --repair            mends what can be mended safely, then checks again"
    )]
    Check {
        /// Release what leaked, finish what was left half-way, mend handles; everything is looked at again first
        #[arg(long)]
        repair: bool,
    },
    /// Release addresses that nothing uses any more
    #[command(after_help = "Examples:\n  voilectl ipam release --ip 10.244.3.17\n  \
        voilectl ipam release --from-report monday.json --from-report tuesday.json\n\n\
        Of several reports only what leaked in all of them is released.")]
    Release(IpamReleaseArgs),
    /// Split a pool into smaller ones of the same space; no address changes
    #[command(after_help = "Example:\n  voilectl ipam split 4 --name default-ipv4-ippool\n\n\
        The datastore must be locked (ClusterInformation default, datastoreReady: false): no address may be assigned meanwhile.")]
    Split(IpamSplitArgs),
    /// Change the IPAMConfiguration
    #[command(
        after_help = "Examples:\n  voilectl ipam configure --strictaffinity true --max-blocks-per-host 4\n  \
        voilectl ipam configure --ip-cooldown-seconds 30"
    )]
    Configure(IpamConfigureArgs),
    /// Draw pools as grids of blocks: owner, fill, borrowed addresses, leaks
    #[command(
        after_help = "Examples:\n  voilectl ipam map\n  voilectl ipam map pool-1\n  NO_COLOR=1 voilectl ipam map"
    )]
    Map {
        /// Only this pool
        pool: Option<String>,
    },
    /// Say why a pod has its addresses, or why it gets none: each pool with its reason; exit code 1 when it gets none
    #[command(after_help = "Example:\n  voilectl ipam explain shop/web-1")]
    Explain {
        /// The pod, as namespace/name
        pod: String,
    },
}

/// Arguments of `ipam release`.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = true)]
pub struct IpamReleaseArgs {
    /// Address to release
    #[arg(long, value_name = "ADDRESS", conflicts_with = "from_report")]
    pub ip: Option<IpAddr>,
    /// Report of `ipam check -o FILE`
    #[arg(long, value_name = "FILE")]
    pub from_report: Vec<PathBuf>,
    /// Although the datastore is not locked, or the report is another version's
    #[arg(long, requires = "from_report")]
    pub force: bool,
}

/// Arguments of `ipam split`.
#[derive(Args, Clone, Debug, Default)]
pub struct IpamSplitArgs {
    /// Number of new pools, a power of two
    pub parts: u32,
    /// Pool to split, by name
    #[arg(long, value_name = "POOL", required_unless_present = "cidr")]
    pub name: Option<String>,
    /// Pool to split, by range
    #[arg(long, value_name = "CIDR", conflicts_with = "name")]
    pub cidr: Option<String>,
}

/// Arguments of `ipam show`.
#[derive(Args, Clone, Debug, Default)]
pub struct IpamShowArgs {
    /// Who holds this address
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["show_blocks", "show_borrowed", "show_configuration"])]
    pub ip: Option<IpAddr>,
    /// One row for each block
    #[arg(long)]
    pub show_blocks: bool,
    /// Addresses taken from another node's block
    #[arg(long, conflicts_with_all = ["show_blocks", "show_configuration"])]
    pub show_borrowed: bool,
    /// The IPAMConfiguration in force
    #[arg(long, conflicts_with = "show_blocks")]
    pub show_configuration: bool,
}

/// Arguments of `ipam configure`.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = true)]
pub struct IpamConfigureArgs {
    /// Never take addresses from another node's block
    #[arg(long, value_name = "BOOL")]
    pub strictaffinity: Option<bool>,
    /// Most blocks for one node; 0 means the default of 20
    #[arg(long, value_name = "NUMBER")]
    pub max_blocks_per_host: Option<u32>,
    /// Whether nodes claim blocks by themselves
    #[arg(long, value_name = "BOOL")]
    pub auto_allocate_blocks: Option<bool>,
    /// Whether a KubeVirt machine keeps its address from one pod to the next: Enabled or Disabled
    #[arg(long, value_name = "STATE", value_parser = ["Enabled", "Disabled"])]
    pub kubevirt_ip_persistence: Option<String>,
    /// How long a released address rests before it is used again; 0 means not at all
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=1200))]
    pub ip_cooldown_seconds: Option<u32>,
}

/// `voilectl policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    #[command(
        after_help = "Examples:\n  voilectl policy show\n  voilectl policy show --pod shop/web-1 -o wide"
    )]
    /// Policies in the order in which they are evaluated, and the pods that each selects
    Show {
        /// Only policies that select this pod (`namespace/name`)
        #[arg(long)]
        pod: Option<String>,
    },
    /// Evaluate one flow with the model that the daemons use; exit code 0 when allowed, 1 when denied
    #[command(after_help = "Examples:\n  voilectl policy explain shop/web-1 db/pg-0:5432\n  \
        voilectl policy explain shop/web-1 db/pg-0:53 --protocol UDP\n  \
        voilectl policy explain 192.0.2.7 '[fd00:10:244::5]:443' -o json")]
    Explain(ExplainArgs),
}

/// Arguments of `policy explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Source pod `namespace/name`, or address
    pub source: String,
    /// Destination pod `namespace/name`, or address, with `:port`
    pub destination: String,
    /// TCP, UDP, SCTP, ICMP, ICMPv6, or a number
    #[arg(long, default_value = "TCP")]
    pub protocol: String,
}
