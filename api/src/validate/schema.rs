//! The part of a CRD's schema that can be checked without the API server: types, enums, bounds, required fields.

use std::{collections::BTreeMap, sync::OnceLock};

use serde_json::Value;

use super::Findings;
use crate::{crd, net};

fn schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let entry = |crd: Value| {
            let kind = crd.pointer("/spec/names/kind")?.as_str()?.to_owned();
            let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema")?.clone();
            Some((kind, schema))
        };
        crd::all().into_iter().filter_map(entry).collect()
    })
}

/// Checks an object against the schema of its kind; returns whether the kind is known and the shape is right.
pub(super) fn check(kind: &str, object: &Value, found: &mut Findings) -> bool {
    let Some(schema) = schemas().get(kind) else { return false };
    let before = found.0.len();
    let mut path = String::new();
    for part in ["spec", "status"] {
        let Some(child) = schema.pointer(&format!("/properties/{part}")) else { continue };
        match object.get(part) {
            Some(value) => {
                part.clone_into(&mut path);
                node(child, value, &mut path, found);
            }
            None if required(schema, part) => {
                found.add(part, "is missing: add it", Value::Null);
            }
            None => {}
        }
    }
    found.0.len() == before
}

fn required(schema: &Value, name: &str) -> bool {
    let list = schema.get("required").and_then(Value::as_array);
    list.is_some_and(|list| list.iter().any(|entry| entry == name))
}

fn node(schema: &Value, value: &Value, path: &mut String, found: &mut Findings) {
    if value.is_null() {
        // Go programs write null for empty lists; the API server prunes it where it is not allowed.
        return;
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        if !value.is_string() && !value.is_i64() && !value.is_u64() {
            found.add(path.as_str(), "must be a whole number or a text", value.clone());
        }
        return;
    }
    let right_type = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !right_type {
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        found.add(path.as_str(), format!("must be of type {wanted}"), value.clone());
        return;
    }
    match value {
        Value::Object(map) => object(schema, map, path, found),
        Value::Array(list) => array(schema, list, path, found),
        _ => scalar(schema, value, path, found),
    }
}

fn object(
    schema: &Value,
    map: &serde_json::Map<String, Value>,
    path: &mut String,
    found: &mut Findings,
) {
    let length = path.len();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, child) in properties.into_iter().flatten() {
        path.push('.');
        path.push_str(name);
        match map.get(name) {
            Some(value) => node(child, value, path, found),
            None if required(schema, name) && child.get("default").is_none() => {
                found.add(path.as_str(), "is missing: add it", Value::Null);
            }
            None => {}
        }
        path.truncate(length);
    }
    if let Some(values) = schema.get("additionalProperties") {
        for (name, value) in map {
            path.push('.');
            path.push_str(name);
            node(values, value, path, found);
            path.truncate(length);
        }
    }
}

fn array(schema: &Value, list: &[Value], path: &mut String, found: &mut Findings) {
    let bound = |name: &str| {
        schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok())
    };
    if let Some(most) = bound("maxItems").filter(|most| list.len() > *most) {
        found.add(path.as_str(), format!("has more than {most} entries: split it"), list.len());
    }
    if let Some(least) = bound("minItems").filter(|least| list.len() < *least) {
        found.add(
            path.as_str(),
            format!("needs at least {least}: add or leave it out"),
            list.len(),
        );
    }
    let is_set = schema.get("x-kubernetes-list-type").is_some_and(|kind| kind == "set");
    let length = path.len();
    for (index, value) in list.iter().enumerate() {
        path.push_str(&format!("[{index}]"));
        if is_set && list.iter().take(index).any(|earlier| earlier == value) {
            found.add(path.as_str(), "is there twice: remove one", value.clone());
        }
        if let Some(items) = schema.get("items") {
            node(items, value, path, found);
        }
        path.truncate(length);
    }
}

fn scalar(schema: &Value, value: &Value, path: &str, found: &mut Findings) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed.iter().map(plain).collect();
        found.add(path, format!("must be one of {}", names.join(", ")), value.clone());
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) =
            schema.get("minimum").and_then(Value::as_f64).filter(|least| number < *least)
        {
            found.add(path, format!("must be at least {least}"), value.clone());
        }
        if let Some(most) =
            schema.get("maximum").and_then(Value::as_f64).filter(|most| number > *most)
        {
            found.add(path, format!("must be at most {most}"), value.clone());
        }
    }
    if let Some(text) = value.as_str() {
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        if let Some(most) = bound("maxLength").filter(|most| length > *most) {
            found.add(path, format!("is longer than {most} characters: shorten it"), text);
        }
        if let Some(least) = bound("minLength").filter(|least| length < *least) {
            found.add(path, format!("must have at least {least} characters"), text);
        }
        let is_cidr = schema.get("format").is_some_and(|format| format == "cidr");
        if is_cidr && !text.is_empty() && text.parse::<ipnet::IpNet>().is_err() {
            found.add(path, net::CidrError::Syntax(text.to_owned()).to_string(), text);
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
