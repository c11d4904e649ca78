//! `[[bmp]]`: collectors of BMP.

use std::{collections::BTreeSet, time::Duration};

use bgp::{
    SpeakerConfig,
    bmp::{Collector, Views},
};
use serde::Deserialize;
use toml::Spanned;

use super::problem::Problems;
use crate::fields::Seconds;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BmpSection {
    address: Spanned<String>,
    monitor: Option<Spanned<Vec<String>>>,
    statistics: Option<Seconds>,
    retry: Option<Spanned<Seconds>>,
    name: Option<String>,
}

pub(super) fn collectors(
    sections: Vec<BmpSection>,
    speaker: &SpeakerConfig,
    problems: &mut Problems<'_>,
) -> Vec<Collector> {
    let mut taken = BTreeSet::new();
    let mut collectors = Vec::new();
    for section in sections {
        let (place, address) = (section.address.span(), section.address.get_ref().clone());
        if let Err(what) = Collector::check_address(&address) {
            problems.add(&place, "bmp, address", what);
        }
        if !taken.insert(address.clone()) {
            problems.add(&place, "bmp, address", format!("{address} is a collector already"));
        }
        let name = section.name.unwrap_or_else(|| speaker.router_id.to_string());
        let mut collector = Collector::new(address, name);
        if let Some(monitor) = &section.monitor {
            collector.views = Views::NONE;
            for name in monitor.get_ref() {
                if !collector.views.add(name) {
                    problems.add(&monitor.span(), "bmp, monitor", Views::unknown(name));
                }
            }
            if monitor.get_ref().is_empty() {
                let what = "nothing is monitored; leave the field out for everything";
                problems.add(&monitor.span(), "bmp, monitor", what);
            }
        }
        if let Some(statistics) = section.statistics {
            collector.statistics = Some(statistics.0).filter(|time| !time.is_zero());
        }
        if let Some(retry) = &section.retry {
            collector.retry = retry.get_ref().0;
            if collector.retry < Duration::from_millis(100) {
                problems.add(&retry.span(), "bmp, retry", "at least 0.1 seconds");
            }
        }
        collectors.push(collector);
    }
    collectors
}
