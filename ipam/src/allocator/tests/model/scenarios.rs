//! What is explored: small clusters in which every pair of operations meets.

use super::world::Kind;

/// What a node does, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Assign(&'static str),
    /// An address of each family.
    AssignBoth(&'static str),
    /// A certain address.
    AssignAt(&'static str, &'static str),
    Release(&'static str),
    /// One of the addresses of a handle.
    ReleaseOne(&'static str),
    Ensure,
    Claim(&'static str),
    GiveUp(&'static str),
    /// Collects without any patience.
    Collect,
    /// A node becomes known.
    Join(&'static str),
}

impl Op {
    pub(super) fn is_of_controller(&self) -> bool {
        matches!(self, Self::Collect | Self::Join(_))
    }

    pub(super) fn handle(&self) -> Option<&'static str> {
        match self {
            Self::Assign(handle) | Self::AssignBoth(handle) | Self::AssignAt(handle, _) => {
                Some(handle)
            }
            Self::Release(handle) | Self::ReleaseOne(handle) => Some(handle),
            _ => None,
        }
    }
}

/// A cluster and what its nodes do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Ranges of the pools and their block sizes.
    pub(super) pools: &'static [(&'static str, u8)],
    /// Done in peace before the nodes start.
    pub(super) before: &'static [(&'static str, Op)],
    pub(super) programs: &'static [(&'static str, &'static [Op])],
    /// Handles whose pods are gone: whoever comes first may release them.
    pub(super) gone: &'static [&'static str],
    /// Nodes that the cluster does not know.
    pub(super) dead: &'static [&'static str],
    /// How fast clocks go apart: with 0 no claim is ever old.
    pub(super) haste: u64,
    pub(super) faults: u8,
    /// Whether a watch that stops for a while is a fault too.
    pub(super) lags: bool,
    /// How often a program repeats a write that fails, before it gives up.
    pub(super) tries: u32,
    /// A kind whose writes the datastore does not compare with what they are based on, to see that this is found.
    pub(super) blind: Option<Kind>,
}

impl Scenario {
    /// Returns whether a seat is the controller's, or the API's, and no node's.
    pub(super) fn is_of_controller(&self, seat: usize) -> bool {
        self.programs[seat].1.iter().all(Op::is_of_controller)
    }

    /// Returns whether nodes become known while the programs run.
    pub(super) fn joins(&self) -> bool {
        self.programs.iter().flat_map(|(_, ops)| *ops).any(|op| matches!(op, Op::Join(_)))
    }
}

const PLAIN: Scenario = Scenario {
    name: "",
    pools: &[],
    before: &[],
    programs: &[],
    gone: &[],
    dead: &[],
    haste: 0,
    faults: 1,
    lags: false,
    tries: 2,
    blind: None,
};

/// Three nodes, one block: whoever claims it first lends to the others.
pub(super) const CLAIM: Scenario = Scenario {
    name: "claim and borrow",
    pools: &[("10.0.0.0/31", 31)],
    programs: &[("n1", &[Op::Ensure]), ("n2", &[Op::Assign("b")]), ("n3", &[Op::Ensure])],
    ..PLAIN
};

/// Two addresses for three pods: whoever comes too late gets none, and leaves nothing.
pub(super) const ASSIGN: Scenario = Scenario {
    name: "assign and release",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Assign("a"))],
    programs: &[
        ("n1", &[Op::Release("a")]),
        ("n2", &[Op::Assign("b"), Op::Release("b")]),
        ("n3", &[Op::Assign("c")]),
    ],
    tries: 1,
    ..PLAIN
};

/// The owner of an old empty block needs it just when two others want it.
pub(super) const RECLAIM: Scenario = Scenario {
    name: "reclaim",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Claim("10.0.0.0/31"))],
    programs: &[("n1", &[Op::Assign("a")]), ("n2", &[Op::Assign("b")]), ("n3", &[Op::Ensure])],
    haste: 1,
    faults: 0,
    tries: 1,
    ..PLAIN
};

/// The same with a fault, where the others want nothing but the block.
pub(super) const RECLAIM_FAULT: Scenario = Scenario {
    programs: &[("n1", &[Op::Assign("a")]), ("n2", &[Op::Ensure]), ("n3", &[Op::Ensure])],
    faults: 1,
    tries: 0,
    ..RECLAIM
};

/// A block becomes empty, is taken over, and its former owner comes again.
pub(super) const TAKE_OVER: Scenario = Scenario {
    name: "release and take over",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Assign("a"))],
    programs: &[("n1", &[Op::Release("a"), Op::Assign("d")]), ("n2", &[Op::Assign("b")])],
    haste: 1,
    faults: 0,
    ..PLAIN
};

/// Pools of other block sizes over the same space, as after a pool was made anew.
pub(super) const OVERLAP: Scenario = Scenario {
    name: "overlap",
    pools: &[("10.0.0.0/30", 30), ("10.0.0.0/30", 31)],
    programs: &[
        ("n1", &[Op::Claim("10.0.0.0/30")]),
        ("n2", &[Op::Claim("10.0.0.2/31")]),
        ("n3", &[Op::Assign("c")]),
    ],
    ..PLAIN
};

/// A node gives a block up, another borrows from it, and a collector without patience cleans up behind them.
pub(super) const GIVE_UP: Scenario = Scenario {
    name: "give up, borrow, collect",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Claim("10.0.0.0/31"))],
    programs: &[
        ("n1", &[Op::GiveUp("10.0.0.0/31")]),
        ("n2", &[Op::Assign("b")]),
        ("gc", &[Op::Collect]),
    ],
    tries: 0,
    ..PLAIN
};

/// A pod is gone: node and collector release its address at once, and another pod gets it.
pub(super) const LEFT: Scenario = Scenario {
    name: "release and collect",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Assign("old"))],
    programs: &[("n1", &[Op::Release("old")]), ("n2", &[Op::Assign("b")]), ("gc", &[Op::Collect])],
    gone: &["old"],
    tries: 1,
    ..PLAIN
};

/// A node is gone, with its pod: the collector takes its block while another node borrows from it and one wants it.
pub(super) const DEAD: Scenario = Scenario {
    name: "a dead node's block",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n4", Op::Assign("old"))],
    programs: &[("n1", &[Op::Assign("a")]), ("n2", &[Op::Ensure]), ("gc", &[Op::Collect])],
    gone: &["old"],
    dead: &["n4"],
    tries: 1,
    ..PLAIN
};

/// A node that was gone comes back while the collector takes its block.
pub(super) const BACK: Scenario = Scenario {
    name: "a node comes back",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Claim("10.0.0.0/31"))],
    programs: &[("n1", &[Op::Assign("a")]), ("api", &[Op::Join("n1")]), ("gc", &[Op::Collect])],
    dead: &["n1"],
    tries: 1,
    ..PLAIN
};

/// A pod with an address of each family gives one back; another gets both.
pub(super) const BOTH: Scenario = Scenario {
    name: "both families",
    pools: &[("10.0.0.0/31", 31), ("fd00::/127", 127)],
    before: &[("n1", Op::AssignBoth("a"))],
    programs: &[("n1", &[Op::ReleaseOne("a")]), ("n2", &[Op::AssignBoth("c")])],
    ..PLAIN
};

/// A pod of both families is gone: node and collector release at once.
pub(super) const BOTH_LEFT: Scenario = Scenario {
    name: "both families, collected",
    pools: &[("10.0.0.0/31", 31), ("fd00::/127", 127)],
    before: &[("n1", Op::AssignBoth("old"))],
    programs: &[("n1", &[Op::Release("old")]), ("gc", &[Op::Collect])],
    gone: &["old"],
    ..PLAIN
};

/// Two nodes: small enough to be explored without any reduction, and with two faults.
pub(super) const PAIR: Scenario = Scenario {
    name: "a pair claims",
    pools: &[("10.0.0.0/31", 31)],
    programs: &[("n1", &[Op::Ensure]), ("n2", &[Op::Assign("b")])],
    ..PLAIN
};

/// The same with a release.
pub(super) const PAIR_RELEASES: Scenario = Scenario {
    name: "a pair releases",
    pools: &[("10.0.0.0/31", 31)],
    before: &[("n1", Op::Assign("a"))],
    programs: &[("n1", &[Op::Release("a")]), ("n2", &[Op::Assign("b")])],
    ..PLAIN
};

/// Two nodes want an old empty block of a third.
pub(super) const RECLAIM_PAIR: Scenario = Scenario {
    name: "a pair reclaims",
    programs: &[("n2", &[Op::Assign("b")]), ("n3", &[Op::Ensure])],
    faults: 1,
    tries: 2,
    ..RECLAIM
};

/// A node wants its own old block, and so does another.
pub(super) const DEFEND_PAIR: Scenario = Scenario {
    name: "owner and reclaimer",
    programs: &[("n1", &[Op::Assign("a")]), ("n2", &[Op::Assign("b")])],
    faults: 1,
    tries: 2,
    ..RECLAIM
};

/// A node gives a block up that another borrows from.
pub(super) const GIVE_UP_PAIR: Scenario = Scenario {
    name: "a pair gives up and borrows",
    programs: &[("n1", &[Op::GiveUp("10.0.0.0/31")]), ("n2", &[Op::Assign("b")])],
    tries: 2,
    ..GIVE_UP
};

/// A node gives a block up that the collector finds.
pub(super) const GIVE_UP_COLLECT: Scenario = Scenario {
    name: "a pair gives up and collects",
    programs: &[("n1", &[Op::GiveUp("10.0.0.0/31")]), ("gc", &[Op::Collect])],
    tries: 2,
    ..GIVE_UP
};

/// A node releases what the collector releases, and uses it again.
pub(super) const LEFT_PAIR: Scenario = Scenario {
    name: "a pair releases and collects",
    programs: &[("n1", &[Op::Release("old"), Op::Assign("a")]), ("gc", &[Op::Collect])],
    tries: 2,
    ..LEFT
};

/// The collector takes a dead node's block that another borrows from.
pub(super) const DEAD_PAIR: Scenario = Scenario {
    name: "a pair, of which one collects from the dead",
    programs: &[("n1", &[Op::Assign("a"), Op::Release("a")]), ("gc", &[Op::Collect])],
    tries: 2,
    ..DEAD
};

/// Two daemons of one node, as while a DaemonSet is rolled out.
pub(super) const TWINS: Scenario = Scenario {
    name: "two daemons of a node",
    pools: &[("10.0.0.0/31", 31)],
    programs: &[("n1", &[Op::Assign("a"), Op::Release("a")]), ("n1", &[Op::Assign("b")])],
    ..PLAIN
};

/// The same while the collector runs.
pub(super) const TWINS_COLLECT: Scenario = Scenario {
    name: "two daemons of a node, and the collector",
    before: &[("n1", Op::Assign("old"))],
    programs: &[("n1", &[Op::Release("old")]), ("n1", &[Op::Assign("b")]), ("gc", &[Op::Collect])],
    gone: &["old"],
    tries: 1,
    ..TWINS
};

/// Blocks of two sizes are claimed at once, and a third node wants an address where they overlap.
pub(super) const OVERLAP_CERTAIN: Scenario = Scenario {
    name: "overlap, and a certain address",
    pools: &[("10.0.0.0/30", 31), ("10.0.0.0/30", 30)],
    programs: &[
        ("n1", &[Op::Claim("10.0.0.0/30"), Op::AssignAt("a", "10.0.0.2")]),
        ("n2", &[Op::Claim("10.0.0.2/31")]),
        ("n3", &[Op::AssignAt("c", "10.0.0.2")]),
    ],
    tries: 0,
    ..PLAIN
};

/// Two daemons of a node claim a block, and another node a larger one.
pub(super) const OVERLAP_TWINS: Scenario = Scenario {
    name: "overlap, and two daemons of a node",
    programs: &[
        ("n1", &[Op::Claim("10.0.0.0/30"), Op::AssignAt("a", "10.0.0.2")]),
        ("n2", &[Op::Claim("10.0.0.2/31")]),
        ("n2", &[Op::Assign("b")]),
    ],
    faults: 0,
    ..OVERLAP_CERTAIN
};

/// A block is given up and made anew, while another is claimed where it was.
pub(super) const OVERLAP_AGAIN: Scenario = Scenario {
    name: "overlap, and a block that comes again",
    before: &[("n2", Op::Claim("10.0.0.2/31"))],
    programs: &[
        ("n1", &[Op::Claim("10.0.0.0/30"), Op::AssignAt("a", "10.0.0.2")]),
        ("n2", &[Op::GiveUp("10.0.0.2/31"), Op::Claim("10.0.0.2/31")]),
        ("n3", &[Op::AssignAt("c", "10.0.0.2")]),
    ],
    faults: 0,
    ..OVERLAP_CERTAIN
};

/// The write that made a block arrives when the block was there before, and is gone again.
pub(super) const OVERLAP_PAIR: Scenario = Scenario {
    name: "overlap, and a block that comes late",
    programs: &[
        ("n1", &[Op::Claim("10.0.0.0/30")]),
        ("n2", &[Op::Claim("10.0.0.2/31"), Op::GiveUp("10.0.0.2/31"), Op::Claim("10.0.0.2/31")]),
    ],
    faults: 2,
    ..OVERLAP_CERTAIN
};
