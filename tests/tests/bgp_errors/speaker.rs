//! The speaker under test: alone in a namespace, with as many passive peers as a table has rows.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use voile_tests::{
    bgp::{
        Lan, Voile,
        raw::{self, Raw, hex},
    },
    can_make_namespaces, skip,
};

/// Our AS; internal peers have the same.
pub(crate) const OUR_AS: u32 = 65001;
pub(crate) const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// Whether a peer is in another AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    External,
    Internal,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::External, Self::Internal];

    pub(crate) const fn asn(self) -> u16 {
        match self {
            Self::External => 65002,
            Self::Internal => 65001,
        }
    }

    /// The address of peer `number`.
    pub(crate) fn address(self, number: usize) -> Ipv4Addr {
        let net = match self {
            Self::External => 1,
            Self::Internal => 2,
        };
        Ipv4Addr::new(
            127,
            net,
            u8::try_from(number / 250).unwrap(),
            u8::try_from(number % 250 + 1).unwrap(),
        )
    }
}

/// IPv4 and IPv6 unicast, four-octet AS numbers.
pub(crate) fn capabilities(side: Side) -> Vec<u8> {
    let mut bytes = hex("0104 0001 00 01  0104 0002 00 01  4104 0000");
    bytes.extend(side.asn().to_be_bytes());
    bytes
}

/// The speaker with its namespace.
pub(crate) struct Fixture {
    pub(crate) voile: Voile,
}

impl Fixture {
    /// Starts a speaker with this many peers of each kind; `more` goes into every peer's section.
    pub(crate) fn start(test: &str, peers: usize, more: &str) -> Option<Self> {
        if !can_make_namespaces() {
            skip(test, "needs root");
            return None;
        }
        let mut body = String::new();
        for side in Side::BOTH {
            for number in 0..peers {
                let address = side.address(number);
                write!(
                    body,
                    "[[peer]]\nname = \"{address}\"\naddress = \"{address}\"\nas = {}\n\
                     families = [\"ipv4\", \"ipv6\"]\nimport-default = \"accept\"\n\
                     export-default = \"accept\"\n{more}\n",
                    side.asn()
                )
                .unwrap();
            }
        }
        Some(Self { voile: Voile::start(&Lan::new(1), 1, OUR_AS, &body) })
    }

    pub(crate) fn connect(&self, side: Side, number: usize) -> Raw {
        let (from, to) = (IpAddr::V4(side.address(number)), IpAddr::V4(OUR_ADDRESS));
        self.voile.namespace().run(|| Raw::connect(from, to)).expect("connect to the speaker")
    }

    /// Returns the OPEN of a peer with these capabilities.
    pub(crate) fn open(side: Side, number: usize, capabilities: &[u8]) -> Vec<u8> {
        raw::open(side.asn(), 90, side.address(number), capabilities)
    }
}
