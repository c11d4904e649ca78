//! Why a prefix goes where it goes: the rules run once more, and this time they are asked for reasons.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use super::Speaker;
use crate::{
    attr::{Community, DEFAULT_LOCAL_PREF, PathAttributes},
    decision::{Candidate, Multipath, Why, decide},
    fib::FibRoute,
    filter::{Action, Source, Subject},
    rib::{Entry, Path, PeerId, SlotId},
    session::State,
    snapshot::{
        Announcement, BlackholeState, FibState, ImportReason, PathExplanation, Rank,
        RouteExplanation, Usage,
    },
    types::{PeerType, Prefix},
    update_group::{UpdateGroup, Withheld, judge, outgoing},
};

/// Paths that are ranked one by one; those behind them are in order of the step in which they lost to the best.
const RANKED: usize = 64;

/// Places in the slot, best path first, with the step that put each behind the one before it.
type Ranking = Vec<(usize, Rank)>;

impl Speaker {
    /// Explains a prefix; `None` if there is no path to it. What is said about the present is said about the last
    /// decision: take all outputs before.
    pub fn explain(&self, prefix: &Prefix) -> Option<RouteExplanation> {
        let id = self.rib.find(prefix)?;
        let entry = self.rib.entry(id, &self.interner)?;
        let ranking = self.ranking(id);
        let mut numbered: Vec<(usize, PathExplanation)> = entry
            .paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| {
                let path = self.explain_path(index, path, &entry, &ranking)?;
                Some((index, path))
            })
            .collect();
        numbered.sort_by_cached_key(|(index, path)| {
            let rank = ranking.iter().position(|(ranked, _)| ranked == index);
            // What is not considered comes last.
            (rank.unwrap_or(usize::MAX), path.usage.clone(), path.peer.clone(), path.path_id)
        });
        let order: Vec<usize> = numbered.iter().map(|(index, _)| *index).collect();
        let paths: Vec<PathExplanation> = numbered.into_iter().map(|(_, path)| path).collect();
        let mut announcements = Vec::new();
        for peer in self.peers.keys() {
            self.explain_export(*peer, id, &entry, &order, &mut announcements);
        }
        announcements.sort_by(|a, b| (&a.peer, a.path).cmp(&(&b.peer, b.path)));
        if paths.is_empty() {
            return None;
        }
        let fib = self.explain_fib(&entry, &paths);
        Some(RouteExplanation { prefix: *prefix, paths, announcements, fib })
    }

    /// Returns the prefix that decides where packets to the address go: the longest with a usable path. Where there is
    /// none, the longest with any path.
    pub fn longest_match(&self, address: IpAddr) -> Option<Prefix> {
        self.rib.longest_match(address)
    }

    fn name_of(&self, id: PeerId) -> Option<String> {
        self.peers.get(&id).map(|peer| peer.config.name.clone())
    }

    /// Decides again and again, each time without the winner before. The steps compare sets of paths (MED), so this is
    /// what the speaker would do if the paths went away one by one.
    fn ranking(&self, id: SlotId) -> Ranking {
        let mut left = self.rib.candidates(id, &self.interner);
        let all: BTreeMap<usize, Candidate<'_>> =
            left.iter().map(|candidate| (candidate.index, *candidate)).collect();
        let compared = |step: Why, this: usize, other: usize| {
            let value = |index: usize| measure(step, all.get(&index)?);
            Some((value(this)?, value(other)?))
        };
        let mut ranking: Ranking = Vec::with_capacity(left.len());
        let mut lost: Vec<(usize, Why)> = Vec::new();
        let alone = Multipath { max_paths: 1, relax: false };
        while let Some(decision) = decide(left.clone(), alone) {
            let Some(best) = decision.used.first().copied() else { break };
            let before = ranking.last().map(|(index, _)| *index);
            let step = lost.iter().find(|(index, _)| *index == best).map(|(_, step)| *step);
            if ranking.len() == 1
                && let (Some(step), Some(first), Some((_, rank))) =
                    (step, before, ranking.first_mut())
            {
                *rank = Rank { step, compared: compared(step, first, best) };
            }
            let step = step.unwrap_or(decision.why);
            let compared = before.and_then(|before| compared(step, best, before));
            ranking.push((best, Rank { step, compared }));
            lost = decision.lost;
            left.retain(|candidate| candidate.index != best);
            if ranking.len() >= RANKED {
                break;
            }
        }
        lost.sort_by_key(|(index, step)| (std::cmp::Reverse(*step), *index));
        let rest = lost.into_iter().filter(|_| !left.is_empty());
        ranking.extend(rest.map(|(index, step)| (index, Rank { step, compared: None })));
        ranking
    }

    pub(super) fn explain_path(
        &self,
        index: usize,
        path: &Path,
        entry: &Entry<'_>,
        ranking: &Ranking,
    ) -> Option<PathExplanation> {
        // What is on its way out is gone.
        let stale = self.rib.fate(entry.prefix.family(), path)?;
        let received = self.interner.attributes(path.received);
        let accepted = path.accepted().ok().map(|set| self.interner.attributes(set));
        let rank = ranking.iter().find(|(ranked, _)| *ranked == index);
        let tagged = received.has(Community::BLACKHOLE)
            || accepted.as_ref().is_some_and(|accepted| accepted.has(Community::BLACKHOLE));
        let blackhole = tagged.then_some(match path.is_blackholed() {
            true => BlackholeState::Honoured,
            false => BlackholeState::NotAgreed,
        });
        Some(PathExplanation {
            peer: self.name_of(path.key.source),
            address: self.peers.get(&path.key.source).map(|peer| peer.config.address),
            path_id: path.key.path_id,
            import: self.import_reason(path, &entry.prefix, &received, accepted.as_ref()),
            accepted,
            received,
            blackhole: blackhole.filter(|_| path.key.source != PeerId::LOCAL),
            stale,
            usage: self.usage(index, path, entry),
            reached: self.rib.way_in_words(path, &self.interner),
            rank: rank.map(|(_, rank)| rank.clone()),
        })
    }

    fn import_reason(
        &self,
        path: &Path,
        prefix: &Prefix,
        received: &PathAttributes,
        accepted: Option<&PathAttributes>,
    ) -> ImportReason {
        let Some(importer) = self.importer(path.key.source) else { return ImportReason::Local };
        let subject = Subject {
            prefix: *prefix,
            attributes: received,
            source: Source::Peers,
            peer_type: importer.peer_type,
        };
        let verdict = importer.config.import.judge(&subject);
        let rule = verdict.why.to_string();
        match accepted {
            // Loops and leaks come before policy and are named by the usage.
            None if verdict.action == Action::Accept => ImportReason::BeforePolicy,
            None => ImportReason::Rejected(rule),
            Some(_) if verdict.action == Action::Reject => {
                ImportReason::Changed(format!("agreed as a blackhole, otherwise {rule}"))
            }
            Some(accepted) if accepted == received => ImportReason::Accepted(rule),
            Some(_) => ImportReason::Changed(rule),
        }
    }

    /// Says what a peer is told, or why not.
    pub(super) fn explain_export(
        &self,
        id: PeerId,
        slot: SlotId,
        entry: &Entry<'_>,
        order: &[usize],
        out: &mut Vec<Announcement>,
    ) {
        let Some(name) = self.name_of(id) else { return };
        let silent = |reason: String| Announcement {
            peer: name.clone(),
            path: None,
            path_id: 0,
            attributes: None,
            reason,
            told: false,
        };
        let group = match self.listener(id, entry) {
            Ok(group) => group,
            Err(why) => return out.push(silent(why)),
        };
        let several = group.key.add_path.contains(entry.prefix.family());
        let used = entry.decision.iter().flat_map(|decision| &decision.used);
        let best = used.clone().next();
        let lost = entry.decision.iter().flat_map(|decision| &decision.lost);
        let usable: Vec<usize> = used.chain(lost.map(|(index, _)| index)).copied().collect();
        if usable.is_empty() {
            return out.push(silent("no path is usable".to_owned()));
        }
        for (place, index) in order.iter().enumerate() {
            let Some(path) = entry.paths.get(*index) else { continue };
            if !usable.contains(index) || !several && best != Some(index) {
                continue;
            }
            let path_id = if several { path.local_id() } else { 0 };
            let result = self.export_of(id, group, &entry.prefix, path);
            let (attributes, reason) = match result {
                Ok((attributes, rule)) => (Some(attributes), rule),
                Err(why) => (None, why),
            };
            let told = group.has_told(id, slot, path_id);
            let (peer, path) = (name.clone(), Some(place));
            out.push(Announcement { peer, path, path_id, attributes, reason, told });
        }
    }

    /// Returns the group of a peer that may hear of the prefix; otherwise why it does not.
    fn listener(&self, id: PeerId, entry: &Entry<'_>) -> Result<&UpdateGroup, String> {
        let group = self.groups.iter().find(|group| group.has(id));
        match (group, self.peers.get(&id)) {
            (Some(group), _) if group.key.families.contains(entry.prefix.family()) => Ok(group),
            (Some(_), _) => {
                Err(format!("{} is not exchanged in the session", entry.prefix.family()))
            }
            (None, Some(peer)) if peer.state != State::Established => {
                let state = peer.state;
                Err(match &peer.last_error {
                    Some(error) => format!("no session ({state}: {error})"),
                    None => format!("no session ({state})"),
                })
            }
            _ => Err("the session has just begun".to_owned()),
        }
    }

    fn export_of(
        &self,
        peer: PeerId,
        group: &UpdateGroup,
        prefix: &Prefix,
        path: &Path,
    ) -> Result<(PathAttributes, String), String> {
        if path.key.source == peer {
            return Err("it is from this peer (split horizon)".to_owned());
        }
        let set = path.accepted().map_err(|_| "not accepted".to_owned())?;
        let attributes = self.interner.attributes(set);
        let Some(sender) = self.senders.get(&path.key.source) else {
            return Err("its peer is gone".to_owned());
        };
        let out = outgoing(&group.key, prefix, Cow::Borrowed(&attributes), sender);
        let out = out.map_err(|why: Withheld| why.to_string())?;
        let verdict = judge(&group.key, prefix, &attributes, sender);
        Ok((out, verdict.why.to_string()))
    }

    pub(super) fn explain_fib(&self, entry: &Entry<'_>, paths: &[PathExplanation]) -> FibState {
        if !self.config.fib {
            return FibState::Off;
        }
        if self.restart.is_some() {
            return FibState::Restarting;
        }
        if entry.route != FibRoute::Absent {
            return self.fib.state(&entry.prefix, entry.route.clone());
        }
        match paths.first().map(|path| (&path.usage, &path.peer)) {
            Some((Usage::Best(_) | Usage::Multipath, None)) => FibState::Local,
            Some((Usage::Unreachable(why), _)) => FibState::Unreachable(why.clone()),
            _ => FibState::NoPath,
        }
    }
}

/// What a step looks at, in words; none where there is nothing to show.
fn measure(step: Why, candidate: &Candidate<'_>) -> Option<String> {
    let attributes = candidate.attributes.attributes();
    Some(match step {
        Why::LocalPref => match attributes.local_pref {
            None => format!("{DEFAULT_LOCAL_PREF} (none was sent)"),
            Some(local_pref) => local_pref.to_string(),
        },
        Why::AsPathLength => attributes.as_path.0.len().to_string(),
        Why::Origin => attributes.origin.to_string(),
        Why::Med => candidate.attributes.med.to_string(),
        Why::PeerType => match candidate.from.peer_type {
            Some(PeerType::External) => "external",
            Some(PeerType::Internal) => "internal",
            None => "local",
        }
        .to_owned(),
        Why::InteriorCost => candidate.cost.to_string(),
        Why::RouterId => candidate.router_id().to_string(),
        Why::ClusterList => attributes.cluster_list.len().to_string(),
        Why::PeerAddress => match candidate.interface {
            None => candidate.from.address.to_string(),
            Some(interface) => format!("{}%{interface}", candidate.from.address),
        },
        Why::PathId => candidate.path_id.to_string(),
        Why::OnlyPath | Why::LongLivedStale | Why::LocalOrigin => return None,
    })
}
