//! Three-way merge of JSON: `raw`, changed by the difference between `base` and `now`.

use serde_json::{Map, Value};

/// Applies to `raw` whatever differs between `base` and `now`.
///
/// `base` is `raw` seen through a type that knows only some of its fields, `now` is the same type after a change. What
/// the type does not know stays; what is in `base` and not in `now` goes.
pub(super) fn three_way(raw: &Value, base: &Value, now: &Value) -> Value {
    if base == now {
        return raw.clone();
    }
    match (raw, base, now) {
        (Value::Object(raw), Value::Object(base), Value::Object(now)) => {
            Value::Object(merge_objects(raw, base, now))
        }
        (Value::Array(raw), Value::Array(base), Value::Array(now)) if raw.len() == base.len() => {
            Value::Array(merge_arrays(raw, base, now))
        }
        _ => now.clone(),
    }
}

fn merge_objects(
    raw: &Map<String, Value>,
    base: &Map<String, Value>,
    now: &Map<String, Value>,
) -> Map<String, Value> {
    let empty = Value::Object(Map::new());
    let mut merged = raw.clone();
    for key in base.keys().filter(|key| !now.contains_key(*key)) {
        merged.shift_remove(key);
    }
    for (key, value) in now {
        let before = base.get(key);
        if before == Some(value) {
            continue;
        }
        let result = match raw.get(key) {
            // A field that the type left out because it looked empty can hold unknown fields all the same.
            Some(raw_value) => three_way(raw_value, before.unwrap_or(&empty), value),
            None => value.clone(),
        };
        merged.insert(key.clone(), result);
    }
    merged
}

/// An element that did not change brings its raw form along, wherever it moved to; one that changed in its place is
/// merged with what was there; anything else is new.
fn merge_arrays(raw: &[Value], base: &[Value], now: &[Value]) -> Vec<Value> {
    let stays = |index: usize| base.get(index).is_some_and(|old| now.get(index) == Some(old));
    let mut taken: Vec<bool> = (0..base.len()).map(stays).collect();
    let mut origins: Vec<Option<usize>> =
        (0..now.len()).map(|index| stays(index).then_some(index)).collect();
    for (value, origin) in now.iter().zip(origins.iter_mut()) {
        // Only containers can hide unknown fields: no search for numbers and strings.
        if origin.is_some() || !(value.is_object() || value.is_array()) {
            continue;
        }
        let moved = base.iter().zip(taken.iter_mut()).position(|(old, taken)| {
            let found = !*taken && old == value;
            *taken |= found;
            found
        });
        *origin = moved;
    }
    now.iter()
        .enumerate()
        .map(|(index, value)| {
            let origin = origins.get(index).copied().flatten();
            let same_place =
                (base.len() == now.len() && taken.get(index) == Some(&false)).then_some(index);
            match (origin.or(same_place), origin.is_some()) {
                (Some(from), true) => raw.get(from).cloned().unwrap_or_else(|| value.clone()),
                (Some(from), false) => match (raw.get(from), base.get(from)) {
                    (Some(raw), Some(base)) => three_way(raw, base, value),
                    _ => value.clone(),
                },
                (None, _) => value.clone(),
            }
        })
        .collect()
}
