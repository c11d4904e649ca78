//! Reading JSON without surprises: what is not there, or is of another type, reads as nothing.

use serde_json::{Map, Value};

/// Follows object keys.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// Text at a path, or "".
pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The array at a path, or an empty one.
pub(super) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The object at a path of a value, made where it is missing.
pub(super) fn object_at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut place = value;
    for key in path {
        place = as_object(place).entry(*key).or_insert(Value::Null);
    }
    as_object(place)
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// Sets a field that is not there yet (or null).
pub(super) fn default_to(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Writes whole numbers without a fraction, as Go does with what it read (`1e6`, `1000000.0`).
pub(super) fn shorten_numbers(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(shorten_numbers),
        Value::Object(map) => map.iter_mut().for_each(|(_, inner)| shorten_numbers(inner)),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0);
            if let Some(Ok(whole)) = whole.map(|float| format!("{float:.0}").parse::<i64>()) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

/// A scalar as selectors and columns show it; "" for nothing.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
