//! A token bucket, so that one node cannot flood the API server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets `burst` requests through at once and `rate` per second in the long run.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_token: Duration,
    depth: Duration,
    /// When the next token is free: virtual time that runs ahead of the clock by at most `depth` before anyone waits.
    next: Mutex<Instant>,
}

impl TokenBucket {
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let per_token = Duration::from_secs(1) / rate.max(1);
        let depth = per_token * burst.max(1);
        Self { per_token, depth, next: Mutex::new(Instant::now()) }
    }

    /// Waits for a token, first come first served.
    pub(super) async fn take(&self) {
        let until = {
            let now = Instant::now();
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(now) + self.per_token;
            next.checked_sub(self.depth).filter(|until| *until > now)
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}
