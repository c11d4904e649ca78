//! Address ranges that never overlap, whatever prefixes they were made of.
//!
//! nf_tables interval sets refuse overlapping members, so a list of CIDRs is never programmed as it was written: it
//! becomes the shortest list of disjoint, non-adjacent ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of addresses of both families as disjoint ranges, in order.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NetSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// The numbers behind an address: what range arithmetic needs of them.
trait Bound: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

macro_rules! bound {
    ($type:ty) => {
        impl Bound for $type {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    };
}
bound!(u32);
bound!(u128);

impl NetSet {
    /// The addresses of any of these prefixes.
    pub fn new<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut set = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => set.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => set.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        set.normalised()
    }

    /// The addresses of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.extend(other);
        set.normalised()
    }

    /// The addresses of any of these sets.
    pub fn union_of<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for set in sets {
            all.extend(set);
        }
        all.normalised()
    }

    /// The addresses that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { v4: subtract(&self.v4, &other.v4), v6: subtract(&self.v6, &other.v6) }
    }

    /// Whether an address is in the set.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(addr) => holds(&self.v4, addr.into()),
            IpAddr::V6(addr) => holds(&self.v6, addr.into()),
        }
    }

    /// Whether there is no address in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The IPv4 ranges, first and last address each.
    pub fn v4(&self) -> impl ExactSizeIterator<Item = (Ipv4Addr, Ipv4Addr)> {
        self.v4.iter().map(|(from, to)| ((*from).into(), (*to).into()))
    }

    /// The IPv6 ranges, first and last address each.
    pub fn v6(&self) -> impl ExactSizeIterator<Item = (Ipv6Addr, Ipv6Addr)> {
        self.v6.iter().map(|(from, to)| ((*from).into(), (*to).into()))
    }

    fn extend(&mut self, other: &Self) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
    }

    fn normalised(mut self) -> Self {
        normalise(&mut self.v4);
        normalise(&mut self.v6);
        self
    }
}

fn holds<T: Bound>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(from, _)| *from <= value);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, to)| value <= *to)
}

/// Sorts, and joins what overlaps or touches.
fn normalise<T: Bound>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for &(from, to) in ranges.iter() {
        match joined.last_mut() {
            Some(last) if last.1.next().is_none_or(|next| from <= next) => {
                last.1 = last.1.max(to);
            }
            _ => joined.push((from, to)),
        }
    }
    *ranges = joined;
}

/// Both lists must be normalised.
fn subtract<T: Bound>(from: &[(T, T)], holes: &[(T, T)]) -> Vec<(T, T)> {
    let mut left = Vec::new();
    for &(start, end) in from {
        let mut cursor = Some(start);
        for &(hole_start, hole_end) in holes {
            let Some(at) = cursor else { break };
            if hole_end < at || hole_start > end {
                continue;
            }
            if let Some(before) = hole_start.previous().filter(|before| at <= *before) {
                left.push((at, before));
            }
            cursor = hole_end.next().filter(|next| *next <= end);
        }
        if let Some(at) = cursor {
            left.push((at, end));
        }
    }
    left
}

/// Whether a family's ranges hold every address there is.
#[must_use]
pub fn is_everything_v4(set: &NetSet) -> bool {
    set.v4.first() == Some(&(Bound::MIN, Bound::MAX))
}

/// Whether a family's ranges hold every address there is.
#[must_use]
pub fn is_everything_v6(set: &NetSet) -> bool {
    set.v6.first() == Some(&(Bound::MIN, Bound::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> NetSet {
        let nets: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
        NetSet::new(&nets)
    }

    fn show(set: &NetSet) -> Vec<String> {
        let v4 = set.v4().map(|(from, to)| format!("{from}-{to}"));
        v4.chain(set.v6().map(|(from, to)| format!("{from}-{to}"))).collect()
    }

    #[test]
    fn overlapping_and_adjacent_prefixes_become_one_range() {
        let set = nets(&["10.0.0.0/16", "10.0.5.5/32", "10.1.0.0/16", "fd00::/64", "fd00::1/128"]);
        assert_eq!(show(&set), ["10.0.0.0-10.1.255.255", "fd00::-fd00::ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn except_cuts_holes_also_at_the_very_ends() {
        let set = nets(&["0.0.0.0/0"]).minus(&nets(&["0.0.0.0/8", "10.0.0.0/8", "255.0.0.0/8"]));
        assert_eq!(show(&set), ["1.0.0.0-9.255.255.255", "11.0.0.0-254.255.255.255"]);
        assert!(is_everything_v4(&nets(&["0.0.0.0/1", "128.0.0.0/1"])));
        assert!(!is_everything_v4(&set));
        assert!(nets(&["10.0.0.0/8"]).minus(&nets(&["0.0.0.0/0"])).is_empty());
    }

    proptest! {
        #[test]
        fn membership_is_that_of_the_prefixes(
            yes in prop::collection::vec((any::<u8>(), 24u8..=32), 0..6),
            no in prop::collection::vec((any::<u8>(), 24u8..=32), 0..6),
        ) {
            let net = |(last, len): &(u8, u8)| {
                IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, *last)), *len).unwrap().trunc()
            };
            let (yes, no): (Vec<_>, Vec<_>) =
                (yes.iter().map(net).collect(), no.iter().map(net).collect());
            let set = NetSet::new(&yes).minus(&NetSet::new(&no));
            for last in 0..=255u8 {
                let addr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
                let wanted = yes.iter().any(|net| net.contains(&addr))
                    && !no.iter().any(|net| net.contains(&addr));
                prop_assert_eq!(set.contains(addr), wanted);
            }
            let ranges: Vec<_> = set.v4().collect();
            for pair in ranges.windows(2) {
                prop_assert!(u32::from(pair[0].1) + 1 < u32::from(pair[1].0));
            }
        }
    }
}
