//! Our table as `nft` reads it, in a form that can be compared: no handles, no counts, sets in order.

use std::collections::BTreeSet;

use serde_json::Value;
use voile_tests::Namespace;

/// Everything that decides about packets, one thing a line; rules with their number in the chain.
pub(crate) type Table = BTreeSet<String>;

pub(crate) fn read(namespace: &Namespace) -> Table {
    let text = namespace.output("nft", &["-j", "list", "table", "inet", "voile"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    let (mut table, mut chain, mut number) = (Table::new(), Value::Null, 0);
    for item in document["nftables"].as_array().unwrap() {
        let (kind, object) = item.as_object().unwrap().iter().next().unwrap();
        if kind == "metainfo" {
            continue;
        }
        // The rules of a chain follow each other.
        number = if kind == "rule" && object["chain"] == chain { number + 1 } else { 0 };
        chain.clone_from(&object["chain"]);
        let mut object = object.clone();
        forget_counts(&mut object);
        let fields = object.as_object_mut().unwrap();
        let _ = fields.remove("handle");
        if let Some(elements) = fields.get_mut("elem").and_then(Value::as_array_mut) {
            elements.sort_by_cached_key(Value::to_string);
        }
        assert!(table.insert(format!("{kind} {number}: {object}")), "twice: {object}");
    }
    table
}

fn forget_counts(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(forget_counts),
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "counter" { *value = Value::Null } else { forget_counts(value) }
            }
        }
        _ => {}
    }
}

/// The first lines that only one of two tables has.
pub(crate) fn difference(left: &Table, right: &Table) -> String {
    let lines = left.symmetric_difference(right).take(20);
    lines.map(|line| format!("{line}\n")).collect()
}
