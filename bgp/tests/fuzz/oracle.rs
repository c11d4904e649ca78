//! The decision process once more, as plainly as RFC 4271 §9.1.2.2, RFC 4456 §9 and RFC 9494 §4.4 say it: written apart from
//! the speaker's, slow, and for one prefix.

use super::bench::{asn, message};

/// A path of 10.7.0.0/16.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Who sends it; also its address and identifier.
    pub(crate) peer: u8,
    long_lived_stale: bool,
    local_pref: u32,
    as_path: Vec<u32>,
    origin: u8,
    med: Option<u32>,
    originator: Option<u8>,
    clusters: u8,
    next_hop: u8,
}

impl Route {
    /// Attributes that follow from a few octets; of few values, so that paths are often equal.
    pub(crate) fn shaped(peer: u8, shape: &[u8]) -> Self {
        let octet = |index: usize| shape.get(index).copied().unwrap_or(0);
        let internal = !peer.is_multiple_of(2);
        let mut as_path: Vec<u32> =
            (0..octet(1) % 3).map(|hop| 100 + u32::from(octet(2).wrapping_add(hop) % 3)).collect();
        if !internal {
            as_path.insert(0, asn(peer));
        }
        let reflected = internal && octet(6) & 1 == 1;
        Self {
            peer,
            long_lived_stale: octet(7) & 1 == 1,
            local_pref: if internal { 100 + u32::from(octet(5) % 2) } else { 100 },
            as_path,
            origin: octet(0) % 3,
            med: (octet(4) & 1 == 1).then(|| u32::from(octet(4) % 3)),
            originator: reflected.then(|| octet(6) % 4),
            clusters: if reflected { 1 + octet(6) / 4 % 3 } else { 0 },
            next_hop: octet(3) % 2 + 1,
        }
    }

    const fn is_internal(&self) -> bool {
        !self.peer.is_multiple_of(2)
    }

    /// The announcement.
    pub(crate) fn update(&self) -> Vec<u8> {
        let mut attributes = vec![0x40, 1, 1, self.origin];
        let length = u8::try_from(self.as_path.len()).unwrap_or(0);
        if length == 0 {
            attributes.extend([0x40, 2, 0]);
        } else {
            attributes.extend([0x40, 2, 2 + 4 * length, 2, length]);
            self.as_path.iter().for_each(|asn| attributes.extend(asn.to_be_bytes()));
        }
        attributes.extend([0x40, 3, 4, 10, 9, 9, self.next_hop]);
        if let Some(med) = self.med {
            attributes.extend([0x80, 4, 4]);
            attributes.extend(med.to_be_bytes());
        }
        if self.is_internal() {
            attributes.extend([0x40, 5, 4]);
            attributes.extend(self.local_pref.to_be_bytes());
        }
        if self.long_lived_stale {
            attributes.extend([0xc0, 8, 4, 0xff, 0xff, 0, 6]);
        }
        if let Some(originator) = self.originator {
            attributes.extend([0x80, 9, 4, 10, 8, 8, originator]);
            attributes.extend([0x80, 10, 4 * self.clusters]);
            (0..self.clusters).for_each(|cluster| attributes.extend([10, 8, 9, cluster]));
        }
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap_or(0).to_be_bytes());
        body.extend(attributes);
        body.extend([16, 10, 7]);
        message(2, &body)
    }
}

/// Returns whose path is to be used.
pub(crate) fn best(routes: &[Route]) -> Option<u8> {
    let mut left: Vec<&Route> = routes.iter().collect();
    keep_least(&mut left, |route| u32::from(route.long_lived_stale));
    keep_least(&mut left, |route| u32::MAX - route.local_pref);
    keep_least(&mut left, |route| u32::try_from(route.as_path.len()).unwrap_or(u32::MAX));
    keep_least(&mut left, |route| route.origin.into());
    // "Remove from consideration routes with less-preferred MULTI_EXIT_DISC": of one neighbouring AS, none counts as 0.
    let rivals = left.clone();
    left.retain(|route| {
        let mut same = rivals.iter().filter(|rival| rival.as_path.first() == route.as_path.first());
        same.all(|rival| rival.med.unwrap_or(0) >= route.med.unwrap_or(0))
    });
    keep_least(&mut left, |route| route.is_internal().into());
    keep_least(&mut left, |route| {
        let own = u32::from_be_bytes([10, 0, 0, route.peer]);
        route.originator.map_or(own, |last| u32::from_be_bytes([10, 8, 8, last]))
    });
    keep_least(&mut left, |route| route.clusters.into());
    keep_least(&mut left, |route| route.peer.into());
    left.first().map(|route| route.peer)
}

fn keep_least(left: &mut Vec<&Route>, key: impl Fn(&Route) -> u32) {
    let least = left.iter().copied().map(&key).min();
    left.retain(|route| Some(key(route)) == least);
}
