//! Schemas: which fields an object may have, their types, bounds and defaults.
//!
//! Built-in kinds and custom resources use the same walk over OpenAPI v3, but fail differently, as in a real API server:
//! a wrong type in a built-in kind is a decoding error (400), in a custom resource a validation error (422).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::status::FieldError;

/// All named schemas; `$ref`s point into it.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Schema>);

/// One schema, compiled.
#[derive(Debug, Default)]
pub(super) struct Schema {
    reference: Option<String>,
    name: String,
    kind: Option<String>,
    format: Option<String>,
    properties: BTreeMap<String, Self>,
    required: Vec<String>,
    values: Option<Box<Self>>,
    items: Option<Box<Self>>,
    allowed: Option<Vec<Value>>,
    pattern: Option<Regex>,
    bounds: BTreeMap<String, Value>,
    default: Option<Value>,
    nullable: bool,
    int_or_string: bool,
    preserve: bool,
    embedded: bool,
    any_of: bool,
    /// `x-kubernetes-patch-strategy`.
    strategy: String,
    /// `x-kubernetes-patch-merge-key`.
    pub(super) merge_key: Option<String>,
}

const BOUNDS: [&str; 8] = [
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

impl Schemas {
    /// Adds named schemas.
    pub(super) fn extend(&mut self, schemas: &Map<String, Value>) {
        for (name, schema) in schemas {
            let mut compiled = Schema::compile(schema);
            name.rsplit('.').next().unwrap_or(name).clone_into(&mut compiled.name);
            if !compiled.properties.is_empty() {
                compiled.any_of = false;
            }
            self.0.insert(name.clone(), compiled);
        }
    }

    /// The schema of that name.
    pub(super) fn named(&self, name: &str) -> Option<&Schema> {
        self.0.get(name)
    }

    fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        let mut schema = schema;
        while let Some(next) = schema.reference.as_ref().and_then(|name| self.0.get(name)) {
            schema = next;
        }
        schema
    }

    /// The schema of a field of an object.
    pub(super) fn field<'a>(&'a self, schema: &'a Schema, name: &str) -> Option<&'a Schema> {
        let schema = self.resolve(schema);
        schema.properties.get(name).or(schema.values.as_deref())
    }

    /// The schema of an array's items.
    pub(super) fn items<'a>(&'a self, schema: &'a Schema) -> Option<&'a Schema> {
        self.resolve(schema).items.as_deref()
    }
}

impl Schema {
    /// Reads an OpenAPI v3 schema.
    pub(super) fn compile(raw: &Value) -> Self {
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_owned);
        let flag = |key: &str| raw.get(key).and_then(Value::as_bool).unwrap_or(false);
        let reference = raw
            .pointer("/allOf/0/$ref")
            .or_else(|| raw.get("$ref"))
            .and_then(Value::as_str)
            .and_then(|path| path.rsplit('/').next())
            .map(str::to_owned);
        let properties = raw.get("properties").and_then(Value::as_object).into_iter().flatten();
        let required = raw.get("required").and_then(Value::as_array).into_iter().flatten();
        let boxed = |key: &str| {
            raw.get(key)
                .filter(|inner| inner.is_object())
                .map(|inner| Box::new(Self::compile(inner)))
        };
        Self {
            reference,
            name: String::new(),
            kind: text("type"),
            format: text("format"),
            properties: properties
                .map(|(name, inner)| (name.clone(), Self::compile(inner)))
                .collect(),
            required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
            values: boxed("additionalProperties"),
            items: boxed("items"),
            allowed: raw.get("enum").and_then(Value::as_array).cloned(),
            pattern: raw
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|text| Regex::new(text).ok()),
            bounds: BOUNDS
                .iter()
                .filter_map(|key| raw.get(*key).map(|bound| ((*key).to_owned(), bound.clone())))
                .collect(),
            default: raw.get("default").cloned(),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string")
                || text("format").as_deref() == Some("int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            any_of: raw.get("oneOf").is_some() || raw.get("anyOf").is_some(),
            strategy: text("x-kubernetes-patch-strategy").unwrap_or_default(),
            merge_key: text("x-kubernetes-patch-merge-key"),
        }
    }

    /// Whether a strategic merge patch merges this list instead of replacing it.
    pub(super) fn merges(&self) -> bool {
        self.strategy.split(',').any(|word| word == "merge")
    }

    /// Whether any object fits (`RawExtension`, `FieldsV1`, preserved unknown fields).
    fn is_open(&self) -> bool {
        self.preserve || self.properties.is_empty()
    }
}

/// Drops fields that the schema does not know, and says which.
pub(super) fn prune(
    schemas: &Schemas,
    schema: &Schema,
    value: &mut Value,
    path: &str,
    unknown: &mut Vec<String>,
) {
    let schema = schemas.resolve(schema);
    match value {
        Value::Object(map) => {
            if let Some(values) = &schema.values {
                for (key, inner) in map {
                    prune(schemas, values, inner, &join(path, key), unknown);
                }
                return;
            }
            if !schema.is_open() {
                map.retain(|key, _| {
                    let known = schema.properties.contains_key(key)
                        || (schema.embedded
                            && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
                    if !known {
                        unknown.push(join(path, key));
                    }
                    known
                });
            }
            for (key, inner) in map {
                if let Some(field) = schema.properties.get(key) {
                    prune(schemas, field, inner, &join(path, key), unknown);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter_mut().enumerate() {
                    prune(schemas, items, inner, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills defaults in. A null where null is not allowed counts as missing (structural schemas; Go's decoder).
pub(super) fn fill_defaults(schemas: &Schemas, schema: &Schema, value: &mut Value) {
    let schema = schemas.resolve(schema);
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| {
                let field = schema.properties.get(key).map(|field| schemas.resolve(field));
                !inner.is_null() || field.is_none_or(|field| field.nullable || field.preserve)
            });
            for (key, field) in &schema.properties {
                if let Some(default) = field.default.as_ref().filter(|_| !map.contains_key(key)) {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, inner) in map {
                if let Some(field) = schema.properties.get(key).or(schema.values.as_deref()) {
                    fill_defaults(schemas, field, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|inner| fill_defaults(schemas, items, inner));
            }
        }
        _ => {}
    }
}

/// Removes Go's zero values, which stand as defaults in the schemas of built-in kinds and say nothing there.
pub(super) fn without_zero_defaults(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let zero = map.get("default").is_some_and(|default| match default {
                Value::Object(inner) => inner.is_empty(),
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::String(text) => text.is_empty(),
                _ => false,
            });
            if zero {
                map.shift_remove("default");
            }
            map.iter_mut().for_each(|(_, inner)| without_zero_defaults(inner));
        }
        Value::Array(list) => list.iter_mut().for_each(without_zero_defaults),
        _ => {}
    }
}

/// Finds the first value of a wrong type in a built-in kind, in the words of Go's decoder.
pub(super) fn decode_error(schemas: &Schemas, schema: &Schema, value: &Value) -> Option<String> {
    decode_at(schemas, schema, value, &schemas.resolve(schema).name, "")
}

fn decode_at(
    schemas: &Schemas,
    schema: &Schema,
    value: &Value,
    owner: &str,
    path: &str,
) -> Option<String> {
    let schema = schemas.resolve(schema);
    if !fits(schema, value) && !value.is_null() {
        let go = go_type(schemas, schema);
        return Some(format!(
            "json: cannot unmarshal {} into Go struct field {owner}.{path} of type {go}",
            go_word(value)
        ));
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            let (field, path) = match (schema.properties.get(key), &schema.values) {
                (Some(field), _) => (field, join(path, key)),
                (None, Some(values)) => (&**values, path.to_owned()),
                (None, None) => return None,
            };
            let owner = if schema.name.is_empty() { owner } else { &schema.name };
            decode_at(schemas, field, inner, owner, &path)
        }),
        Value::Array(list) => {
            let items = schema.items.as_deref()?;
            list.iter().find_map(|inner| decode_at(schemas, items, inner, owner, path))
        }
        _ => None,
    }
}

fn go_word(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    }
}

fn go_type(schemas: &Schemas, schema: &Schema) -> String {
    match schema.kind.as_deref() {
        Some("integer") => schema.format.clone().unwrap_or_else(|| "int64".to_owned()),
        Some("boolean") => "bool".to_owned(),
        Some("array") => {
            let item =
                schema.items.as_deref().map(|items| go_type(schemas, schemas.resolve(items)));
            format!("[]{}", item.unwrap_or_default())
        }
        Some("object") if schema.values.is_some() => "map[string]string".to_owned(),
        Some("object") if !schema.name.is_empty() => format!("v1.{}", schema.name),
        Some(other) => other.to_owned(),
        None => schema.name.clone(),
    }
}

/// Whether a value is of the schema's type.
fn fits(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match (schema.kind.as_deref(), value) {
        (None, _) => true,
        (Some("string"), Value::String(_))
        | (Some("boolean"), Value::Bool(_))
        | (Some("array"), Value::Array(_))
        | (Some("object"), Value::Object(_))
        | (Some("number"), Value::Number(_)) => true,
        (Some("integer"), Value::Number(number)) => {
            number.is_i64()
                || number.is_u64()
                || number.as_f64().is_some_and(|float| float.fract() == 0.0)
        }
        _ => schema.any_of,
    }
}

/// What [`validate`] enforces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strictness {
    /// A custom resource: everything in its schema.
    Full,
    /// A built-in kind, whose schema says more "required" than the server enforces: empty lists and the status may lack.
    BuiltIn,
}

/// Checks types, bounds, enums, patterns and required fields.
pub(super) fn validate(
    schemas: &Schemas,
    schema: &Schema,
    value: &Value,
    strictness: Strictness,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_at(schemas, schema, value, "", strictness, &mut errors);
    errors.sort_by(|a, b| a.field.cmp(&b.field));
    errors
}

fn validate_at(
    schemas: &Schemas,
    schema: &Schema,
    value: &Value,
    path: &str,
    strictness: Strictness,
    errors: &mut Vec<FieldError>,
) {
    let schema = schemas.resolve(schema);
    if value.is_null() && (schema.nullable || schema.preserve || strictness == Strictness::BuiltIn)
    {
        return;
    }
    if !fits(schema, value) {
        errors.push(wrong_type(schema, value, path));
        return;
    }
    check_scalar(schema, value, path, strictness, errors);
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if strictness == Strictness::BuiltIn && path.is_empty() && key == "status" {
                    continue;
                }
                if let Some(field) = schema.properties.get(key).or(schema.values.as_deref()) {
                    validate_at(schemas, field, inner, &join(path, key), strictness, errors);
                }
            }
            for key in schema.required.iter().filter(|key| !map.contains_key(*key)) {
                if strictness == Strictness::Full || is_enforced(schemas, schema, key) {
                    errors.push(FieldError::required(&join(path, key)));
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter().enumerate() {
                    validate_at(
                        schemas,
                        items,
                        inner,
                        &format!("{path}[{index}]"),
                        strictness,
                        errors,
                    );
                }
            }
        }
        _ => {}
    }
}

fn is_enforced(schemas: &Schemas, schema: &Schema, key: &str) -> bool {
    let field = schema.properties.get(key).map(|field| schemas.resolve(field));
    let list = field.is_some_and(|field| field.kind.as_deref() == Some("array"));
    match schema.name.as_str() {
        "Event" => false,
        _ => !list || matches!(key, "containers" | "addresses"),
    }
}

fn wrong_type(schema: &Schema, value: &Value, path: &str) -> FieldError {
    let wanted = if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.as_deref().unwrap_or_default()
    };
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let reason = format!("{path} in body must be of type {wanted}: \"{got}\"");
    FieldError {
        reason: "FieldValueTypeInvalid",
        ..FieldError::value(path, &Value::from(got), &reason)
    }
}

fn check_scalar(
    schema: &Schema,
    value: &Value,
    path: &str,
    strictness: Strictness,
    errors: &mut Vec<FieldError>,
) {
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
        && !(strictness == Strictness::BuiltIn && value == "")
    {
        let allowed: Vec<String> = allowed.iter().map(super::value::show).collect();
        errors.push(FieldError::unsupported(path, value, &allowed));
    }
    for (bound, limit) in &schema.bounds {
        errors.extend(check_bound(bound, limit, value, path));
    }
    let Value::String(text) = value else { return };
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        errors.push(FieldError::value(
            path,
            value,
            &format!("{path} in body should match '{pattern}'"),
        ));
    }
    if let Some(format) = schema.format.as_deref().filter(|format| !has_format(format, text)) {
        let why = format!("{path} in body must be of type {format}: {value}");
        errors.push(FieldError::value(path, value, &why));
    }
}

fn check_bound(bound: &str, limit: &Value, value: &Value, path: &str) -> Option<FieldError> {
    let most = limit.as_u64().unwrap_or(u64::MAX);
    let measure = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let too_many = |count: u64| FieldError {
        field: path.to_owned(),
        reason: "FieldValueTooMany",
        message: format!("Too many: {count}: must have at most {most} items"),
    };
    match (bound, value) {
        ("minimum", Value::Number(number)) if number.as_f64() < limit.as_f64() => {
            let why = format!("{path} in body should be greater than or equal to {limit}");
            Some(FieldError::value(path, value, &why))
        }
        ("maximum", Value::Number(number)) if number.as_f64() > limit.as_f64() => {
            let why = format!("{path} in body should be less than or equal to {limit}");
            Some(FieldError::value(path, value, &why))
        }
        ("minLength", Value::String(text)) if measure(text.chars().count()) < most => {
            let why = format!("{path} in body should be at least {limit} chars long");
            Some(FieldError::value(path, value, &why))
        }
        ("maxLength", Value::String(text)) if measure(text.chars().count()) > most => {
            Some(FieldError {
                field: path.to_owned(),
                reason: "FieldValueTooLong",
                message: format!("Too long: may not be more than {most} bytes"),
            })
        }
        ("minItems", Value::Array(list)) if measure(list.len()) < most => {
            let why = format!("{path} in body should have at least {limit} items");
            Some(FieldError::value(path, &Value::from(list.len()), &why))
        }
        ("maxItems", Value::Array(list)) if measure(list.len()) > most => {
            Some(too_many(measure(list.len())))
        }
        ("minProperties", Value::Object(map)) if measure(map.len()) < most => {
            let why = format!("{path} in body should have at least {limit} properties");
            Some(FieldError::value(path, &Value::from(map.len()), &why))
        }
        ("maxProperties", Value::Object(map)) if measure(map.len()) > most => {
            Some(too_many(measure(map.len())))
        }
        _ => None,
    }
}

/// The formats that apiextensions enforces and our kinds use; others are documentation.
fn has_format(format: &str, text: &str) -> bool {
    match format {
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "mac" => {
            text.split([':', '-']).count() == 6
                && text
                    .split([':', '-'])
                    .all(|octet| octet.len() == 2 && u8::from_str_radix(octet, 16).is_ok())
        }
        _ => true,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
