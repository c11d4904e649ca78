//! The table of what was shown with whom.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use crate::matrix::{ALL, FEATURES};

/// Scenarios that passed, by feature and speaker.
#[derive(Default)]
pub(crate) struct Results {
    passed: BTreeMap<(&'static str, &'static str), usize>,
}

const HEAD: &str = "\
# BGP: what works with whom

Written by `cargo test -p voile-tests --test bgp_interop` from the scenarios that passed: each runs `voile-bgpd` and the other
speaker, as Debian 12 ships it, in network namespaces. The number says how many scenarios show the feature; a dash means
that there is none, mostly because the other speaker does not have it. `UPDATE_EXPECT=1` writes this file again.

";

impl Results {
    pub(crate) fn pass(&mut self, feature: &'static str, speaker: &'static str) {
        *self.passed.entry((feature, speaker)).or_default() += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.passed.values().sum()
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        let names: Vec<&str> = ALL.iter().map(|speaker| speaker.name).collect();
        writeln!(text, "| Feature | {} |", names.join(" | ")).unwrap();
        writeln!(text, "|---|{}", "---|".repeat(names.len())).unwrap();
        for feature in FEATURES {
            let cells = names.iter().map(|name| match self.passed.get(&(feature.title, *name)) {
                Some(count) => count.to_string(),
                None => "-".to_owned(),
            });
            let cells: Vec<String> = cells.collect();
            writeln!(text, "| {} | {} |", feature.title, cells.join(" | ")).unwrap();
        }
        text
    }

    /// Says how the file differs from what was shown now.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/bgp-interop.md");
        let text = self.render();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, text).unwrap();
            return Ok(());
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        if written == text {
            return Ok(());
        }
        Err(format!(
            "docs/reference/bgp-interop.md should read (UPDATE_EXPECT=1 writes it):\n{text}"
        ))
    }
}
