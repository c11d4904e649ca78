//! What was checked, and what came of it.

use std::time::Duration;

use serde_json::json;

use super::{Output, Tone};

/// All checks so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    name: String,
    passed: bool,
    detail: String,
}

impl Summary {
    pub(super) fn add(&mut self, name: &str, passed: bool, detail: &str) {
        self.checks.push(Check { name: name.to_owned(), passed, detail: detail.to_owned() });
    }

    /// Prints everything; says whether all passed.
    pub(super) fn print(&self, out: &Output, took: Duration) -> bool {
        for check in &self.checks {
            let mark = if check.passed {
                out.paint("passed", Tone::Good)
            } else {
                out.paint("FAILED", Tone::Bad)
            };
            let detail = if check.passed || check.detail.is_empty() {
                String::new()
            } else {
                format!(": {}", check.detail)
            };
            out.line(&format!("   {mark}  {}{detail}", check.name));
        }
        let failed = self.checks.iter().filter(|check| !check.passed).count();
        let passed = self.checks.len() - failed;
        let seconds = took.as_secs_f64();
        let tone = if failed == 0 { Tone::Good } else { Tone::Bad };
        out.line("");
        out.line(&out.paint(&format!("   {passed} passed, {failed} failed, {seconds:.1} s"), tone));
        out.result(&json!({
            "passed": passed, "failed": failed, "seconds": (seconds * 10.0).round() / 10.0,
            "checks": self.checks.iter().map(|check| json!({
                "name": check.name, "passed": check.passed, "detail": check.detail,
            })).collect::<Vec<_>>(),
        }));
        failed == 0
    }
}
