//! From the JSON schema that schemars derives to the structural schema that Kubernetes accepts.

use serde_json::{Map, Value};

/// Rewrites a derived schema, references already inlined.
pub(super) fn structural(schema: Value) -> Value {
    match schema {
        Value::Object(map) => Value::Object(node(map, Place::Property)),
        // `true`: anything goes; no type of ours has it.
        other => other,
    }
}

/// Where a schema stands: only items may be null (`allocations`); optional properties are left out instead.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Property,
    Item,
}

fn node(mut map: Map<String, Value>, place: Place) -> Map<String, Value> {
    for key in ["$schema", "title", "$defs"] {
        map.remove(key);
    }
    let nullable = take_null(&mut map);
    merge_single(&mut map, "anyOf");
    merge_single(&mut map, "allOf");
    constants_to_enum(&mut map);
    numbers(&mut map);
    if nullable && place == Place::Item {
        map.insert("nullable".to_owned(), true.into());
    }
    // Defaults and enums that an attribute wants gone.
    map.retain(|_, value| !value.is_null());
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for child in properties.values_mut() {
            rewrite(child, Place::Property);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(key) {
            rewrite(child, Place::Item);
        }
    }
    if map.get("additionalProperties").is_some_and(Value::is_boolean) {
        map.remove("additionalProperties");
    }
    map
}

fn rewrite(child: &mut Value, place: Place) {
    if let Value::Object(map) = child.take() {
        *child = Value::Object(node(map, place));
    }
}

/// Removes the ways of saying "or null", and tells whether there was one.
fn take_null(map: &mut Map<String, Value>) -> bool {
    let mut found = false;
    if let Some(Value::Array(types)) = map.get_mut("type") {
        let before = types.len();
        types.retain(|kind| kind != "null");
        found |= types.len() != before;
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        let before = values.len();
        values.retain(|value| !value.is_null());
        found |= values.len() != before;
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        let before = choices.len();
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        found |= choices.len() != before;
    }
    found
}

/// `anyOf: [X]` next to other keys becomes X with those keys on top.
fn merge_single(map: &mut Map<String, Value>, key: &str) {
    let single = map.get(key).and_then(Value::as_array).is_some_and(|list| list.len() == 1);
    if !single {
        return;
    }
    let Some(Value::Array(choices)) = map.remove(key) else { return };
    if let Some(Value::Object(inner)) = choices.into_iter().next() {
        for (key, value) in inner {
            map.entry(key).or_insert(value);
        }
    }
    take_null(map);
    // An optional whose own schema is a choice nests them.
    merge_single(map, key);
}

/// `oneOf: [{const}, ...]`, which is how an enum with documented variants comes out, becomes `enum`.
fn constants_to_enum(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get("oneOf") else { return };
    let mut values = Vec::new();
    let mut notes = Vec::new();
    for choice in choices {
        let Some(constant) = choice.get("const") else { return };
        values.push(constant.clone());
        if let Some(note) = choice.get("description").and_then(Value::as_str) {
            notes.push(format!("{}: {note}", constant.as_str().unwrap_or_default()));
        }
    }
    map.remove("oneOf");
    map.entry("type").or_insert("string".into());
    map.entry("enum").or_insert(Value::Array(values));
    if let Some(Value::String(description)) = map.get_mut("description") {
        *description = [std::mem::take(description), notes.join(" ")].join(" ");
    }
}

/// Keeps the bounds that somebody wrote and drops those that come with Rust's types: a stock client may store more.
fn numbers(map: &mut Map<String, Value>) {
    let format = map.get("format").and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = matches!(map.get("type").and_then(Value::as_str), Some("integer" | "number"));
    if number && !format.is_empty() {
        map.remove("format");
        let (minimum, maximum) = (map.get("minimum"), map.get("maximum"));
        let from_zero = minimum.is_some_and(|value| value.as_f64() == Some(0.0));
        let whole_type = match format.as_str() {
            // A bound that fills the type was written on purpose where the field says so: there the type is wider.
            "uint16" => false,
            _ => maximum.is_none(),
        };
        if from_zero && whole_type && format.starts_with("uint") {
            map.remove("minimum");
            map.remove("maximum");
        }
    }
    if let Some(format) = map.remove("x-voile-format") {
        map.insert("format".to_owned(), format);
    }
}
