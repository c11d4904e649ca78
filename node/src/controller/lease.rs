//! Who leads: one Lease of coordination.k8s.io, as client-go's leader election uses it.
//!
//! Times in the Lease are never compared with our clock, which may differ from the holder's: a holder is gone when its Lease
//! did not change for as long as it says, measured here.

use std::time::Duration;

use api::{Key, Lease, LeaseSpec};
use ipam::{Clock, UnixNanos};
use store::{Store, StoreError, Stored};
use tokio::{sync::watch, time::Instant};

use super::LEASE;

/// Times of the election.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long others wait for a silent holder.
    duration: Duration,
    /// How long a holder that cannot renew goes on: shorter, so that nobody else leads yet when it stops.
    renew_deadline: Duration,
    /// Between two attempts.
    retry: Duration,
}

impl Timing {
    /// In the proportions of client-go: 15 s, 10 s, 2 s.
    pub(crate) fn new(duration: Duration) -> Self {
        Self { duration, renew_deadline: duration * 2 / 3, retry: duration * 2 / 15 }
    }
}

/// What to do with a Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Create,
    Take,
    Renew,
    Follow,
}

/// Decides. `unchanged` is how long this copy has seen the Lease as it is.
fn step(lease: Option<&LeaseSpec>, own: &str, unchanged: Duration) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let patience = u64::try_from(lease.lease_duration_seconds.unwrap_or_default()).unwrap_or(0);
    match holder {
        "" => Step::Take,
        _ if holder == own => Step::Renew,
        _ if unchanged >= Duration::from_secs(patience) => Step::Take,
        _ => Step::Follow,
    }
}

/// One copy's part in the election.
#[derive(Clone, Debug)]
pub(crate) struct Elector<S> {
    store: S,
    key: Key,
    own: String,
    timing: Timing,
    clock: Clock,
    /// The revision of the Lease, and since when.
    observed: Option<(String, Instant)>,
}

impl<S: Store> Elector<S> {
    pub(crate) fn new(store: S, namespace: &str, own: &str, timing: Timing, clock: Clock) -> Self {
        let key = Key::namespaced(namespace, LEASE);
        Self { store, key, own: own.to_owned(), timing, clock, observed: None }
    }

    /// Takes part until the task is dropped.
    pub(crate) async fn run(mut self, leading: watch::Sender<bool>) {
        let mut renewed = Instant::now();
        loop {
            match tokio::time::timeout(self.timing.renew_deadline, self.attempt()).await {
                Ok(Ok(leads)) => {
                    renewed = Instant::now();
                    tell(&leading, leads, "the Lease says so");
                }
                Ok(Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. })) => {
                    tell(&leading, false, "another copy was faster");
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot read or write the Lease"),
                Err(_) => tracing::warn!("the datastore does not answer about the Lease"),
            }
            if renewed.elapsed() >= self.timing.renew_deadline {
                tell(&leading, false, "the Lease could not be renewed");
            }
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    /// Creates, renews or takes the Lease if it is to be had; returns whether this copy leads.
    async fn attempt(&mut self) -> Result<bool, StoreError> {
        let found = match self.store.get::<Lease>(&self.key).await {
            Ok(lease) => Some(lease),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let unchanged = self.observe(found.as_ref());
        let now = micro_time(self.clock.now());
        let next = step(found.as_ref().map(|lease| &lease.spec), &self.own, unchanged);
        let mut lease = match (next, found) {
            (Step::Follow, _) => return Ok(false),
            (_, Some(lease)) => lease,
            (_, None) => {
                let namespace = self.key.namespace.clone().unwrap_or_default();
                let mut lease = Lease::in_namespace(namespace, LEASE, LeaseSpec::default());
                self.fill(&mut lease.spec, &now, true);
                self.store.create(&lease).await?;
                return Ok(true);
            }
        };
        self.fill(&mut lease.spec, &now, next == Step::Take);
        self.store.update(&lease).await?;
        Ok(true)
    }

    fn fill(&self, spec: &mut LeaseSpec, now: &str, taken: bool) {
        if taken {
            let transitions = spec.lease_transitions.map_or(0, |count| count.saturating_add(1));
            spec.lease_transitions = Some(transitions);
            spec.acquire_time = Some(now.to_owned());
            spec.holder_identity = Some(self.own.clone());
        }
        let seconds = i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX);
        // The API server wants at least one second.
        spec.lease_duration_seconds = Some(seconds.max(1));
        spec.renew_time = Some(now.to_owned());
    }

    fn observe(&mut self, found: Option<&Stored<Lease>>) -> Duration {
        let Some(found) = found else {
            self.observed = None;
            return Duration::ZERO;
        };
        let revision = found.revision().to_string();
        match &self.observed {
            Some((seen, since)) if *seen == revision => since.elapsed(),
            _ => {
                self.observed = Some((revision, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Gives the Lease back, so that the next leader need not wait.
    pub(crate) async fn give_back(&self) {
        let release = async {
            let mut lease = self.store.get::<Lease>(&self.key).await?;
            if lease.spec.holder_identity.as_deref() != Some(&self.own) {
                return Ok(());
            }
            lease.spec.holder_identity = Some(String::new());
            lease.spec.lease_duration_seconds = Some(1);
            self.store.update(&lease).await.map(drop)
        };
        match tokio::time::timeout(Duration::from_secs(2), release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot give the Lease back; it runs out"),
            Err(_) => tracing::warn!("cannot give the Lease back in time; it runs out"),
        }
    }
}

fn tell(leading: &watch::Sender<bool>, leads: bool, reason: &str) {
    leading.send_if_modified(|now| {
        let changed = *now != leads;
        if changed && leads {
            tracing::info!("this copy leads");
        } else if changed {
            tracing::info!(%reason, "this copy does not lead any more");
        }
        *now = leads;
        changed
    });
}

/// `MicroTime` of the API: RFC 3339 with exactly six digits.
fn micro_time(now: UnixNanos) -> String {
    let seconds = now.rfc3339();
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), now.0 / 1_000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_free_or_silent_and_renewed_when_own() {
        let lease = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let after = Duration::from_secs;
        assert_eq!(step(None, "a", after(0)), Step::Create);
        assert_eq!(step(Some(&lease("")), "a", after(0)), Step::Take);
        assert_eq!(step(Some(&lease("a")), "a", after(99)), Step::Renew);
        assert_eq!(step(Some(&lease("b")), "a", after(14)), Step::Follow);
        assert_eq!(step(Some(&lease("b")), "a", after(15)), Step::Take);
    }

    #[test]
    fn times_have_six_digits() {
        assert_eq!(micro_time(UnixNanos(1_790_000_000_120_000_999)), "2026-09-21T14:13:20.120000Z");
    }
}
