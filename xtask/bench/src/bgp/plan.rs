//! Who announces what to the speaker and who must hold what in the end, computed before anything is measured.

use std::{net::Ipv4Addr, sync::Arc};

use super::{
    table::{Bits, Mark, Truth, Universe},
    wire::{self, Attributes},
};

/// Address of the measured speaker.
pub(crate) const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// AS of the measured speaker.
pub(crate) const SPEAKER_AS: u32 = 65_000;
/// Prefixes an UPDATE of the shape of the Internet's table.
const PER_UPDATE: usize = 7;

/// One peer of the speaker.
#[derive(Debug, Clone)]
pub(crate) struct PeerPlan {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    /// Everything that it announces, End-of-RIB included.
    pub(crate) stream: Arc<Vec<u8>>,
    /// What it must hold in the end.
    pub(crate) expected: Arc<Bits>,
    /// What it announces.
    pub(crate) own: Arc<Bits>,
    /// The same, in the order of its feed.
    feed: Vec<u32>,
}

/// A whole scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) peers: Vec<PeerPlan>,
    pub(crate) truth: Arc<Truth>,
    /// Whether the peers are clients of a route reflector.
    pub(crate) reflector: bool,
    /// Hold time that the peers offer, in seconds.
    pub(crate) hold_time: u16,
}

impl Plan {
    /// `senders` eBGP peers announce `each` prefixes in the shape of the Internet's table: a few prefixes to a set of
    /// attributes, none of them twice. One more peer only receives.
    pub(crate) fn internet(senders: u32, each: u32) -> Self {
        let count = (senders * each).next_power_of_two();
        let universe = Universe { base: 0x1000_0000, length: 24, count };
        let mut all = Bits::new(universe);
        let mut marks = vec![0; usize::try_from(count).unwrap_or(0)];
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut feeds = Vec::new();
        let mut origin = 4_200_000_000;
        for sender in 0..senders {
            let (address, asn) = (address(sender), 65_001 + sender);
            // An odd factor permutes a power of two: the prefixes of a feed do not lie side by side.
            let numbers = sender * each..(sender + 1) * each;
            let own: Vec<u32> = numbers.map(|i| i.wrapping_mul(0x9_E3B1) & (count - 1)).collect();
            let mut stream = Vec::new();
            for chunk in own.chunks(PER_UPDATE) {
                origin += 1;
                let attributes = random.attributes(address, asn, origin);
                let addresses = chunk.iter().map(|number| universe.address(*number));
                wire::announce(&mut stream, &attributes, addresses, universe.length);
                for number in chunk {
                    all.set(*number, true);
                    if let Some(mark) = marks.get_mut(usize::try_from(*number).unwrap_or(0)) {
                        *mark = origin;
                    }
                }
            }
            wire::end_of_rib(&mut stream);
            feeds.push((address, asn, stream, own));
        }
        let mut nothing = Vec::new();
        wire::end_of_rib(&mut nothing);
        feeds.push((address(senders), 65_001 + senders, nothing, Vec::new()));
        let truth = Truth { universe, mark: Mark::Origin, marks };
        Self::new(feeds, &all, truth, false)
    }

    /// `clients` iBGP clients of a reflector announce `each` blocks of addresses, all with the attributes of a node.
    pub(crate) fn reflector(clients: u32, each: u32) -> Self {
        let universe = Universe { base: 0x0A80_0000, length: 26, count: (clients * each).max(1) };
        let mut all = Bits::new(universe);
        let mut marks = Vec::new();
        let mut feeds = Vec::new();
        for client in 0..clients {
            let address = address(client);
            let own: Vec<u32> = (client * each..(client + 1) * each).collect();
            let mut stream = Vec::new();
            if !own.is_empty() {
                let attributes = Attributes {
                    next_hop: address.octets(),
                    local_pref: Some(100),
                    ..Attributes::default()
                };
                let addresses = own.iter().map(|number| universe.address(*number));
                wire::announce(&mut stream, &attributes, addresses, universe.length);
            }
            wire::end_of_rib(&mut stream);
            for number in &own {
                all.set(*number, true);
                marks.push(u32::from(address));
            }
            feeds.push((address, SPEAKER_AS, stream, own));
        }
        let truth = Truth { universe, mark: Mark::NextHop, marks };
        Self::new(feeds, &all, truth, true)
    }

    fn new(
        feeds: Vec<(Ipv4Addr, u32, Vec<u8>, Vec<u32>)>,
        all: &Bits,
        truth: Truth,
        reflector: bool,
    ) -> Self {
        let peers = feeds.into_iter().map(|(address, asn, stream, own)| {
            let expected = Arc::new(without(all, &own));
            let mut bits = Bits::new(truth.universe);
            for number in &own {
                bits.set(*number, true);
            }
            let (stream, own_bits) = (Arc::new(stream), Arc::new(bits));
            PeerPlan { address, asn, stream, expected, own: own_bits, feed: own }
        });
        Self { peers: peers.collect(), truth: Arc::new(truth), reflector, hold_time: 90 }
    }

    /// The bytes with which the first peer withdraws everything, and what each peer must hold afterwards.
    pub(crate) fn withdrawal(&self) -> (Vec<u8>, Vec<Arc<Bits>>) {
        let universe = self.truth.universe;
        let Some(first) = self.peers.first() else { return Default::default() };
        let addresses: Vec<u32> = first.feed.iter().map(|n| universe.address(*n)).collect();
        let mut stream = Vec::new();
        wire::withdraw(&mut stream, &addresses, universe.length);
        let expected = self.peers.iter().map(|peer| Arc::new(without(&peer.expected, &first.feed)));
        (stream, expected.collect())
    }

    /// The addresses of all peers.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.peers.iter().map(|peer| peer.address).collect()
    }
}

fn without(all: &Bits, own: &[u32]) -> Bits {
    let mut rest = all.clone();
    for number in own {
        rest.set(*number, false);
    }
    rest
}

/// The address of a peer: 250 in each /24 from 10.0.1.0 on.
fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0A00_0101 + (index / 250) * 256 + index % 250)
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).unwrap_or(0) % limit.max(1)
    }

    fn attributes(&mut self, next_hop: Ipv4Addr, asn: u32, origin: u32) -> Attributes {
        let mut path = vec![asn];
        for _ in 0..1 + self.below(4) {
            path.push(1000 + self.below(50_000));
        }
        path.push(origin);
        let communities = (0..1 + self.below(4)).map(|_| (asn << 16) | self.below(1000)).collect();
        Attributes {
            path,
            next_hop: next_hop.octets(),
            med: (self.below(3) == 0).then(|| self.below(100)),
            local_pref: None,
            communities,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_expects_what_the_others_announce() {
        let plan = Plan::internet(3, 1000);
        let counts: Vec<u32> = plan.peers.iter().map(|peer| peer.expected.count).collect();
        assert_eq!(counts, [2000, 2000, 2000, 3000]);
        let (_, afterwards) = plan.withdrawal();
        let counts: Vec<u32> = afterwards.iter().map(|bits| bits.count).collect();
        assert_eq!(counts, [2000, 1000, 1000, 2000]);
        let plan = Plan::reflector(500, 4);
        assert!(plan.peers.iter().all(|peer| peer.expected.count == 499 * 4));
    }
}
