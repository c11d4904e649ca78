//! Collectors of BMP: they hear of sessions and routes as they come and go.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{ConnectionId, Output, Speaker};
use crate::{
    bmp::{Description, DownReason, Ends, Monitor, Statistic, Taken, Watched},
    rib::{Journal, PeerId},
    session::Direction,
    snapshot::CollectorSnapshot,
    types::Family,
    update_group::{Exports, Table},
};

impl Speaker {
    /// A collector of the configuration is connected; it is told everything. `since_epoch` is the wall time.
    pub fn bmp_connected(&mut self, collector: &str, since_epoch: Duration, now: Instant) {
        self.now = now;
        let wanted = self.config.collectors.iter().find(|each| each.address == collector);
        let Some(wanted) = wanted.cloned() else { return };
        let us = Description { asn: self.config.local_as, router_id: self.config.router_id };
        let mut monitor = Monitor::new(wanted, us, since_epoch, now);
        for (id, peer) in &*self.peers {
            if let Some(watched) =
                peer.established.and_then(|connection| self.watched(*id, connection))
            {
                monitor.peer_up(*id, watched);
            }
        }
        self.rib.keep_journal(true);
        self.monitors.insert(collector.to_owned(), monitor);
        self.signal_monitors();
    }

    /// The connection to a collector is gone.
    pub fn bmp_closed(&mut self, collector: &str) {
        self.monitors.remove(collector);
        self.keep_journal_if_read();
    }

    /// Takes about `limit` bytes of messages for a collector.
    pub fn bmp_take(&mut self, collector: &str, limit: usize, now: Instant) -> Taken {
        self.now = now;
        self.read_journal();
        let Self { rib, interner, senders, groups, monitors, .. } = self;
        let Some(monitor) = monitors.get_mut(collector) else {
            return Taken::Messages(Vec::new());
        };
        let exports = Exports { groups, table: Table { rib, interner, senders } };
        let taken = monitor.take(limit, &exports, now);
        monitor.signalled = matches!(&taken, Taken::Messages(messages) if !messages.is_empty());
        if !monitor.signalled {
            self.signal_monitors();
        }
        taken
    }

    /// Sends the statistics of all sessions to a collector.
    pub fn bmp_statistics(&mut self, collector: &str, now: Instant) {
        self.now = now;
        let Some(mut monitor) = self.monitors.remove(collector) else { return };
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let of_peer = |id: PeerId| {
            let count = self.rib.count(id);
            let withdrawn = self.peers.get(&id).map_or(0, |peer| peer.treated_as_withdraw);
            vec![
                Statistic::Rejected(number(count.received.saturating_sub(count.accepted))),
                Statistic::AdjRibIn(number(count.received)),
                Statistic::TreatedAsWithdraw(withdrawn),
                Statistic::AdjRibOut(number(
                    Family::ALL.iter().map(|family| self.advertised(id, *family)).sum(),
                )),
            ]
        };
        let chosen = self.rib.all().filter(|id| self.rib.chosen(*id).is_some());
        let mut families = [(Family::Ipv4, 0_u64), (Family::Ipv6, 0)];
        for family in chosen.filter_map(|id| self.rib.prefix(id)).map(|prefix| prefix.family()) {
            for (of, count) in &mut families {
                *count = count.saturating_add(u64::from(*of == family));
            }
        }
        let total = families.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        let each = families.into_iter().map(|(of, count)| Statistic::LocRibFamily(of, count));
        let loc_rib: Vec<Statistic> =
            std::iter::once(Statistic::LocRib(total)).chain(each).collect();
        monitor.statistics(now, of_peer, &loc_rib);
        self.monitors.insert(collector.to_owned(), monitor);
        self.signal_monitors();
    }

    /// The message that ends the connection to a collector.
    pub fn bmp_farewell() -> Bytes {
        Monitor::termination()
    }

    /// Forgets collectors that are not wanted any more, or otherwise.
    pub(super) fn configure_collectors(&mut self) {
        let wanted = &self.config.collectors;
        self.monitors.retain(|_, monitor| wanted.contains(monitor.collector()));
        self.keep_journal_if_read();
    }

    /// Describes the collectors of the configuration.
    pub(super) fn collectors(&self) -> Vec<CollectorSnapshot> {
        let all = self.config.collectors.iter().map(|collector| {
            let monitor = self.monitors.get(&collector.address);
            CollectorSnapshot {
                address: collector.address.clone(),
                connected: monitor.is_some(),
                waiting: monitor.map_or(0, Monitor::waiting),
            }
        });
        all.collect()
    }

    fn watched(&self, id: PeerId, connection: ConnectionId) -> Option<Watched> {
        let (session, peer) = (self.connections.get(&connection)?, self.peers.get(&id)?);
        let negotiated = session.negotiated.as_ref()?;
        let remote_port = match session.direction {
            Direction::Outgoing => peer.config.port,
            // Not known here.
            Direction::Incoming => 0,
        };
        Some(Watched {
            address: peer.config.address,
            asn: peer.config.asn,
            router_id: negotiated.router_id,
            ends: Ends { local: session.local?, local_port: 0, remote_port },
            since: session.established_at?,
            families: negotiated.families,
            add_path: negotiated.add_path_receive,
            add_path_out: negotiated.add_path_send,
            sent_open: session.our_open.clone(),
            received_open: session.their_open_message.clone(),
        })
    }

    pub(super) fn monitor_up(&mut self, id: PeerId, connection: ConnectionId) {
        if self.monitors.is_empty() {
            return;
        }
        // What happened before belongs to the session before.
        self.read_journal();
        let Some(watched) = self.watched(id, connection) else { return };
        for monitor in self.monitors.values_mut() {
            monitor.peer_up(id, watched.clone());
        }
        self.signal_monitors();
    }

    pub(super) fn monitor_down(&mut self, id: PeerId, reason: &DownReason) {
        if self.monitors.is_empty() {
            return;
        }
        self.read_journal();
        for monitor in self.monitors.values_mut() {
            monitor.peer_down(id, reason, self.now);
        }
        self.signal_monitors();
    }

    /// What a peer is told may be something else than before.
    pub(super) fn monitor_exports(&mut self, id: PeerId) {
        self.monitors.values_mut().for_each(|monitor| monitor.exports_changed(id));
        self.signal_monitors();
    }

    pub(super) fn monitor_end_of_rib(&mut self, id: PeerId, family: Family) {
        self.read_journal();
        self.monitors.values_mut().for_each(|monitor| monitor.end_of_rib(id, family));
        self.signal_monitors();
    }

    /// Passes on what changed in the table.
    pub(super) fn read_journal(&mut self) {
        let Journal { paths, chosen } = self.rib.take_journal();
        if paths.is_empty() && chosen.is_empty() {
            return;
        }
        for monitor in self.monitors.values_mut() {
            monitor.paths_changed(&paths);
            monitor.choices_changed(&chosen);
        }
        self.watch_routes(&chosen);
        self.signal_monitors();
    }

    fn signal_monitors(&mut self) {
        for (collector, monitor) in &mut self.monitors {
            if !monitor.signalled && monitor.has_something() {
                monitor.signalled = true;
                self.outputs.push_back(Output::BmpReady(collector.clone()));
            }
        }
    }
}
