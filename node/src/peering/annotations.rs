//! What Calico's kinds have no field for, and get none from us: annotations of a BGPPeer, and of BGPConfiguration `default` for the mesh.

use std::{collections::BTreeMap, time::Duration};

use bgp::{bfd, config::Blackhole};

/// Prefixes that the peer may ask to be dropped (RFC 7999). Of a BGPPeer only: among nodes nobody means the other nodes.
const BLACKHOLE: &str = "voile.dev/blackhole";
/// Whether and how BFD watches the path to the peer (RFC 5882).
const BFD: &str = "voile.dev/bfd";

fn find<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    annotations.get(name).map(|text| text.trim()).filter(|text| !matches!(*text, "" | "false"))
}

/// What was agreed with the peer: `true`, or the prefixes that it may ask to be dropped.
pub(super) fn blackhole(annotations: &BTreeMap<String, String>) -> Result<Blackhole, String> {
    let Some(text) = find(annotations, BLACKHOLE) else { return Ok(Blackhole::None) };
    if text == "true" {
        return Ok(Blackhole::Accepted);
    }
    let networks = text.split(',').map(|text| text.trim().parse());
    let networks: Result<_, bgp::MalformedPrefix> = networks.collect();
    let networks = networks.map_err(|error| {
        format!("annotation {BLACKHOLE}: {error}; write true, or prefixes separated by commas")
    })?;
    Ok(Blackhole::Within(networks))
}

/// `true`, or what differs from three packets of 300 ms over one hop: `interval=100ms, multiplier=5, multi-hop, strict`.
pub(super) fn bfd(annotations: &BTreeMap<String, String>) -> Result<Option<bfd::Config>, String> {
    let Some(text) = find(annotations, BFD) else { return Ok(None) };
    let mut config = bfd::Config::default();
    if text == "true" {
        return Ok(Some(config));
    }
    for part in text.split(',').map(str::trim) {
        set(&mut config, part).ok_or_else(|| {
            format!(
                "annotation {BFD}: '{part}' is nothing that can be set; write true, or some of interval=300ms, multiplier=3, \
                 multi-hop, strict, separated by commas"
            )
        })?;
    }
    Ok(Some(config))
}

fn set(config: &mut bfd::Config, part: &str) -> Option<()> {
    match part.split_once('=') {
        None if part == "multi-hop" => config.multi_hop = true,
        None if part == "strict" => config.strict = true,
        Some(("interval", value)) => {
            let (number, factor) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
                (Some(number), _) => (number, 1),
                (None, Some(number)) => (number, 1000),
                (None, None) => return None,
            };
            let milliseconds = number.parse::<u32>().ok()?.checked_mul(factor)?;
            // RFC 5880 §4.1 counts microseconds in 32 bits.
            let sensible = (1..=60_000).contains(&milliseconds);
            let interval = sensible.then(|| Duration::from_millis(u64::from(milliseconds)))?;
            config.timing.desired_min_tx = interval;
            config.timing.required_min_rx = interval;
        }
        Some(("multiplier", value)) => {
            config.timing.detect_multiplier = value.parse().ok().filter(|number| *number > 0)?;
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfd_is_told_by_what_differs() {
        let read = |text: &str| bfd(&BTreeMap::from([(BFD.to_owned(), text.to_owned())]));
        for off in ["", "false", " false "] {
            assert_eq!(read(off), Ok(None));
        }
        assert_eq!(bfd(&BTreeMap::new()), Ok(None));
        assert_eq!(read("true"), Ok(Some(bfd::Config::default())));
        let interval = Duration::from_millis(100);
        let timing = bfd::Timing {
            desired_min_tx: interval,
            required_min_rx: interval,
            detect_multiplier: 5,
        };
        let all = bfd::Config { timing, multi_hop: true, strict: true };
        assert_eq!(read("interval=100ms, multiplier=5,multi-hop , strict"), Ok(Some(all)));
        assert_eq!(read("interval=2s").unwrap().unwrap().timing.desired_min_tx, interval * 20);
        for wrong in [
            "yes",
            "interval",
            "interval=300",
            "interval=0ms",
            "interval=61s",
            "interval=-1s",
            "multiplier=0",
            "multiplier=256",
            "multi-hop=1",
            "strict,",
            "interval=4294967295s",
        ] {
            let problem = read(wrong).unwrap_err();
            assert!(problem.starts_with("annotation voile.dev/bfd: '"), "{problem}");
        }
    }
}
