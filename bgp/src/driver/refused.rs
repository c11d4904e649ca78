//! The kernel's count of segments with a missing, unexpected or wrong signature of TCP MD5 or TCP-AO: the only trace that
//! a wrong key leaves.

use std::time::{Duration, Instant};

/// Fields of `TcpExt` in `/proc/net/netstat`.
const COUNTERS: [&str; 6] = [
    "TCPMD5NotFound",
    "TCPMD5Unexpected",
    "TCPMD5Failure",
    "TCPAORequired",
    "TCPAOBad",
    "TCPAOKeyNotFound",
];
/// Reading costs more than a keepalive.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads the count now and then.
#[derive(Debug, Default)]
pub(super) struct RefusedSegments {
    next: Option<Instant>,
}

impl RefusedSegments {
    /// Returns the total of this network namespace if it is time to look.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = now.checked_add(INTERVAL);
        // The namespace of the thread, not that of the process.
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
        Some(total(&text))
    }
}

/// Every group has a line of names and a line of numbers.
fn total(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let pairs = names.split_whitespace().zip(numbers.split_whitespace());
    let refused = pairs.filter(|(name, _)| COUNTERS.contains(name));
    refused.filter_map(|(_, number)| number.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_three_counters_are_added() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure X\n\
                    TcpExt: 7 1 20 300 9\nIpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(super::total(text), 321);
        assert_eq!(super::total("IpExt: InNoRoutes\nIpExt: 5\n"), 0);
    }
}
