//! The next hops of all sets of attributes, numbered: what is known of one is found by its number.

use std::{net::IpAddr, num::NonZeroU32};

use hashbrown::HashMap;

/// Number of a next hop; used again once no set has it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NextHopId(NonZeroU32);

impl NextHopId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// How many sets have it.
    sets: u32,
}

/// All next hops.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    index: HashMap<IpAddr, NextHopId>,
    entries: Vec<Entry>,
    free: Vec<NextHopId>,
    /// Sets that come together mostly share it.
    recent: Option<(IpAddr, NextHopId)>,
    /// Numbers that got another meaning, for who follows them.
    news: Option<Vec<NextHopId>>,
}

impl NextHops {
    /// Begins or ends to remember which numbers change their meaning; what is there already is news at first.
    pub(crate) fn follow(&mut self, follow: bool) {
        if follow != self.news.is_some() {
            let all = (0..self.entries.len()).map(NextHopId::new);
            self.news = follow.then(|| all.collect());
        }
    }

    /// Returns the numbers that may mean another address, or none, since the last time.
    pub(crate) fn take_news(&mut self) -> Vec<NextHopId> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A set has this next hop.
    pub(super) fn hold(&mut self, address: IpAddr) -> NextHopId {
        let known = self.recent.filter(|(recent, _)| *recent == address).map(|(_, id)| id);
        let id = known.or_else(|| self.index.get(&address).copied());
        let id = id.unwrap_or_else(|| self.add(address));
        self.recent = Some((address, id));
        if let Some(entry) = self.entries.get_mut(id.index()) {
            entry.sets = entry.sets.saturating_add(1);
        }
        id
    }

    fn add(&mut self, address: IpAddr) -> NextHopId {
        let entry = Entry { address, sets: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.entries.get_mut(id.index()) {
                    *place = entry;
                }
                id
            }
            None => {
                self.entries.push(entry);
                NextHopId::new(self.entries.len().saturating_sub(1))
            }
        };
        self.index.insert(address, id);
        self.tell(id);
        id
    }

    /// A set that had this next hop is gone.
    pub(super) fn release(&mut self, id: NextHopId) {
        let Some(entry) = self.entries.get_mut(id.index()) else { return };
        entry.sets = entry.sets.saturating_sub(1);
        if entry.sets == 0 {
            self.index.remove(&entry.address);
            self.free.push(id);
            self.recent = None;
            self.tell(id);
        }
    }

    fn tell(&mut self, id: NextHopId) {
        if let Some(news) = &mut self.news {
            news.push(id);
        }
    }

    pub(crate) fn address(&self, id: NextHopId) -> Option<IpAddr> {
        self.entries.get(id.index()).filter(|entry| entry.sets > 0).map(|entry| entry.address)
    }

    /// Lists those that some set has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().filter(|entry| entry.sets > 0).map(|entry| entry.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_one_address_as_long_as_a_set_has_it() {
        let [one, two, three] = ["10.0.0.1", "10.0.0.2", "::1"].map(|text| text.parse().unwrap());
        let mut hops = NextHops::default();
        let first = hops.hold(one);
        assert_eq!(hops.hold(one), first);
        hops.follow(true);
        let second = hops.hold(two);
        assert_ne!(second, first);
        assert_eq!(hops.take_news(), [first, second]);
        hops.release(first);
        assert_eq!((hops.address(first), hops.take_news()), (Some(one), vec![]));
        hops.release(first);
        assert_eq!((hops.address(first), hops.take_news()), (None, vec![first]));
        assert_eq!(hops.iter().collect::<Vec<_>>(), [two]);
        // The number is used again, not for the address of before.
        assert_eq!(hops.hold(three), first);
        assert_eq!(hops.take_news(), [first]);
        assert_ne!(hops.hold(one), first);
        assert_eq!(hops.iter().count(), 3);
    }
}
