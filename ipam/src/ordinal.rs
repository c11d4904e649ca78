//! Address of a block <-> its ordinal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The largest block: 4096 addresses, a /20 or a /116 (Calico's limits for `blockSize`).
pub const MAX_BLOCK_BITS: u32 = 12;

/// Returns how many addresses a block has; `None` for prefixes too large to be a block.
#[must_use]
pub fn size(block: &IpNet) -> Option<u32> {
    let bits = u32::from(block.max_prefix_len()) - u32::from(block.prefix_len());
    (bits <= MAX_BLOCK_BITS).then(|| 1 << bits)
}

/// Returns the address at `ordinal`; `None` beyond the end.
#[must_use]
pub fn address(block: &IpNet, ordinal: u32) -> Option<IpAddr> {
    (ordinal < size(block)?).then(|| offset(block.network(), u128::from(ordinal)))
}

/// Returns the ordinal of an address; `None` when it is not in the block.
#[must_use]
pub fn ordinal(block: &IpNet, address: IpAddr) -> Option<u32> {
    if !block.contains(&address) {
        return None;
    }
    let distance = number(address).checked_sub(number(block.network()))?;
    u32::try_from(distance).ok().filter(|ordinal| size(block).is_some_and(|size| *ordinal < size))
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Adds to an address; wraps at the end of the family's space, which no caller reaches.
pub(crate) fn offset(base: IpAddr, distance: u128) -> IpAddr {
    match base {
        IpAddr::V4(v4) => {
            let low = u32::try_from(distance & u128::from(u32::MAX)).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from(u32::from(v4).wrapping_add(low)))
        }
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).wrapping_add(distance))),
    }
}

/// Returns whether two prefixes share an address.
#[must_use]
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordinal_of_every_block_size_goes_there_and_back() {
        for text in ["10.0.0.0/32", "10.1.2.128/26", "10.0.16.0/20", "fd00::/116", "fd00::40/122"] {
            let block: IpNet = text.parse().unwrap();
            let count = size(&block).unwrap();
            for index in 0..count {
                assert_eq!(ordinal(&block, address(&block, index).unwrap()), Some(index));
            }
            assert_eq!(address(&block, count), None);
            assert_eq!(ordinal(&block, offset(block.network(), u128::from(count))), None);
        }
        assert_eq!(size(&"10.0.0.0/8".parse().unwrap()), None);
        assert_eq!(ordinal(&"10.0.0.0/26".parse().unwrap(), "fd00::1".parse().unwrap()), None);
    }

    #[test]
    fn prefixes_overlap_when_one_holds_the_other() {
        let check = |a: &str, b: &str| overlap(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(check("10.0.0.0/26", "10.0.0.32/28"));
        assert!(check("10.0.0.32/28", "10.0.0.0/26"));
        assert!(!check("10.0.0.0/26", "10.0.0.64/26"));
        assert!(!check("0.0.0.0/0", "::/0"));
    }
}
