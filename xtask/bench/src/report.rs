//! Figures as tables with ratios, or as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// KiB, printed as MiB.
    Kib,
    /// Percent of one processor.
    Percent,
    /// A plain number.
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 10.0 => format!("{value:.3} s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Kib => format!("{:.1} MiB", value / 1024.0),
            Self::Percent => format!("{value:.2} %"),
            Self::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Count => format!("{value:.2}"),
        }
    }
}

/// A column of a section.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Name in JSON.
    pub key: &'static str,
    /// Heading of the table.
    pub title: &'static str,
    /// How its figures are written.
    pub unit: Unit,
    /// Whether the ratio to the baseline follows.
    pub ratio: bool,
}

/// What one subject reached.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who: a program.
    pub subject: String,
    /// A figure a column; `None` where there is none.
    pub values: Vec<Option<f64>>,
    /// What went wrong: printed, never hidden.
    pub fault: Option<String>,
}

/// One scenario and everybody who was measured in it.
#[derive(Debug, Clone)]
pub struct Section {
    /// Name, as the command line takes it.
    pub name: String,
    /// What happens in it, in a sentence.
    pub what: String,
    /// The subject that ratios refer to.
    pub baseline: &'static str,
    /// The figures.
    pub columns: Vec<Column>,
    /// The subjects.
    pub rows: Vec<Row>,
}

impl Section {
    fn base(&self, column: usize) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.subject.starts_with(self.baseline))?;
        row.values.get(column).copied().flatten().filter(|value| *value > 0.0)
    }

    /// The section as an aligned table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut heading = vec![String::new()];
        for column in &self.columns {
            heading.push(column.title.to_owned());
            if column.ratio {
                heading.push(format!("vs {}", self.baseline));
            }
        }
        let mut lines = vec![heading];
        for row in &self.rows {
            let mut cells = vec![row.subject.clone()];
            for (index, column) in self.columns.iter().enumerate() {
                let value = row.values.get(index).copied().flatten();
                cells.push(value.map_or_else(|| "-".to_owned(), |value| column.unit.show(value)));
                if column.ratio {
                    let base = self.base(index);
                    cells.push(value.zip(base).map_or_else(String::new, |(value, base)| {
                        if row.subject.starts_with(self.baseline) {
                            String::new()
                        } else {
                            ratio(value / base)
                        }
                    }));
                }
            }
            cells.push(row.fault.as_ref().map_or_else(String::new, |why| format!("FAULT: {why}")));
            lines.push(cells);
        }
        format!("{}: {}\n{}", self.name, self.what, align(&lines))
    }

    /// The section for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut object = Map::new();
            object.insert("subject".to_owned(), json!(row.subject));
            object.insert("fault".to_owned(), json!(row.fault));
            for (index, column) in self.columns.iter().enumerate() {
                let value = row.values.get(index).copied().flatten();
                object.insert(column.key.to_owned(), json!(value));
                if column.ratio {
                    let over = value.zip(self.base(index)).map(|(value, base)| value / base);
                    object.insert(format!("{}_ratio", column.key), json!(over));
                }
            }
            Value::Object(object)
        });
        json!({
            "scenario": self.name,
            "what": self.what,
            "baseline": self.baseline,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

fn ratio(ratio: f64) -> String {
    if !ratio.is_finite() || ratio <= 0.0 {
        String::new()
    } else if ratio < 0.995 {
        format!("{:.1}x less", 1.0 / ratio)
    } else {
        format!("{ratio:.1}x more")
    }
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |index: usize| {
        lines.iter().filter_map(|line| Some(line.get(index)?.chars().count())).max().unwrap_or(0)
    };
    // The last column is the complaint: it ends the line and needs no width.
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match index {
                0 => write!(row, "  {cell:<width$}"),
                _ if cell.starts_with("FAULT") => write!(row, "  {cell}"),
                _ => write!(row, "  {cell:>width$}"),
            };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// The machine in words that do not age: what somebody needs to judge the figures.
#[must_use]
pub fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} processors, Linux {}", kernel.trim())
}

/// A whole suite for programs.
#[must_use]
pub fn suite(name: &str, sections: &[Section]) -> Value {
    let sections: Vec<Value> = sections.iter().map(Section::json).collect();
    json!({ "suite": name, "machine": machine(), "scenarios": sections })
}

/// The value that lies at this part (0 to 1) of the sorted values; the median is 0.5.
#[must_use]
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    // A median of an even number is the mean of the two in the middle.
    #[expect(clippy::cast_precision_loss, reason = "a number of measurements, far below 2^52")]
    let position = part.clamp(0.0, 1.0) * last as f64;
    let low = sorted.iter().copied().nth(floor(position))?;
    let high = sorted.iter().copied().nth(floor(position.ceil()))?;
    Some(low + (high - low) * position.fract())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a list: not negative, not beyond its length"
)]
fn floor(position: f64) -> usize {
    position as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_refer_to_the_baseline_and_faults_stay_visible() {
        let column = |key, unit, ratio| Column { key, title: key, unit, ratio };
        let row = |subject: &str, values: [Option<f64>; 2], fault: Option<&str>| Row {
            subject: subject.to_owned(),
            values: values.to_vec(),
            fault: fault.map(str::to_owned),
        };
        let section = Section {
            name: "dfz2".to_owned(),
            what: "two".to_owned(),
            baseline: "BIRD",
            columns: vec![column("time", Unit::Seconds, true), column("memory", Unit::Kib, true)],
            rows: vec![
                row("BIRD 2", [Some(10.0), Some(1024.0)], None),
                row("ours", [Some(1.0), Some(2048.0)], None),
                row("other", [None, None], Some("it died")),
            ],
        };
        let table = section.table();
        assert!(table.contains("10.0x less") && table.contains("2.0x more"), "{table}");
        assert!(table.contains("FAULT: it died"), "{table}");
        assert_eq!(section.json()["rows"][1]["time_ratio"], 0.1);
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
