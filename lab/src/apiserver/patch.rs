//! The three patches that kubectl sends; server-side apply is refused.

use serde_json::{Map, Value};

use super::{
    schema::{Schema, Schemas},
    status::Failure,
};

/// Applies the body of a PATCH request. `schema` is that of a built-in kind: custom resources have no strategic merge.
pub(super) fn apply(
    content_type: &str,
    target: &mut Value,
    body: &[u8],
    schemas: &Schemas,
    schema: Option<&Schema>,
) -> Result<(), Failure> {
    let malformed =
        |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
    match (content_type, schema) {
        ("application/json-patch+json", _) => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(malformed)?;
            json_patch::patch(target, &patch).map_err(|error| {
                Failure::new(
                    422,
                    "Invalid",
                    format!(
                        "the server rejected our request due to an error in our request: {error}"
                    ),
                )
            })
        }
        ("application/merge-patch+json", _) => {
            json_patch::merge(target, &object(serde_json::from_slice(body).map_err(malformed)?)?);
            Ok(())
        }
        ("application/strategic-merge-patch+json", Some(schema)) => {
            let patch = object(serde_json::from_slice(body).map_err(malformed)?)?;
            merge(schemas, Some(schema), target, patch);
            Ok(())
        }
        ("application/apply-patch+yaml", _) => Err(no_server_side_apply()),
        _ => Err(Failure::media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json",
        )),
    }
}

/// The answer to server-side apply.
pub(super) fn no_server_side_apply() -> Failure {
    Failure::media_type(
        "the lab's API server has no server-side apply (apply-patch): use `kubectl apply` without --server-side",
    )
}

fn object(patch: Value) -> Result<Value, Failure> {
    let kind = match &patch {
        Value::Object(_) => return Ok(patch),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    Err(Failure::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
    )))
}

/// Strategic merge (apimachinery `strategicpatch`): like a JSON merge, but lists with a merge key merge by that key.
fn merge(schemas: &Schemas, schema: Option<&Schema>, target: &mut Value, patch: Value) {
    let Value::Object(mut patch) = patch else {
        *target = patch;
        return;
    };
    match patch.shift_remove("$patch").as_ref().and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(patch);
            return;
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    if let Some(Value::Array(keep)) = patch.shift_remove("$retainKeys") {
        fields.retain(|key, _| keep.iter().any(|kept| kept == key));
    }
    let server: Map<String, Value> = fields.clone();
    let mut orders = Vec::new();
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_primitives(fields, list, &value);
        } else if let Some(list) = key.strip_prefix("$setElementOrder/") {
            orders.push((list.to_owned(), value));
        } else {
            if value.is_array() {
                orders.insert(0, (key.clone(), value.clone()));
            }
            merge_field(schemas, schema, fields, key, value);
        }
    }
    for (list, order) in orders {
        let field =
            schema.and_then(|schema| schemas.field(schema, &list)).filter(|field| field.merges());
        if let (Some(field), Some(Value::Array(elements))) = (field, fields.get_mut(&list)) {
            sort_like(elements, server.get(&list), &order, field.merge_key.as_deref());
        }
    }
}

fn merge_field(
    schemas: &Schemas,
    schema: Option<&Schema>,
    fields: &mut Map<String, Value>,
    key: String,
    value: Value,
) {
    let field = schema.and_then(|schema| schemas.field(schema, &key));
    match value {
        Value::Null => {
            fields.shift_remove(&key);
        }
        Value::Object(_) => {
            let place = fields.entry(key).or_insert(Value::Null);
            merge(schemas, field, place, value);
        }
        Value::Array(patches) if field.is_some_and(Schema::merges) => {
            let place = fields.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if !place.is_array() {
                *place = Value::Array(Vec::new());
            }
            let Value::Array(elements) = place else { return };
            let items = field.and_then(|field| schemas.items(field));
            merge_list(
                schemas,
                items,
                elements,
                patches,
                field.and_then(|field| field.merge_key.as_deref()),
            );
        }
        other => {
            fields.insert(key, other);
        }
    }
}

fn merge_list(
    schemas: &Schemas,
    items: Option<&Schema>,
    elements: &mut Vec<Value>,
    patches: Vec<Value>,
    merge_key: Option<&str>,
) {
    if patches
        .iter()
        .any(|patch| patch.get("$patch").is_some_and(|directive| directive == "replace"))
    {
        *elements = patches.into_iter().filter(|patch| patch.get("$patch").is_none()).collect();
        return;
    }
    let Some(merge_key) = merge_key else {
        for patch in patches {
            if !elements.contains(&patch) {
                elements.push(patch);
            }
        }
        return;
    };
    for patch in patches {
        let identity = patch.get(merge_key).cloned();
        let found = elements.iter().position(|element| element.get(merge_key) == identity.as_ref());
        let deletes = patch.get("$patch").is_some_and(|directive| directive == "delete");
        match found {
            Some(index) if deletes => {
                elements.remove(index);
            }
            Some(index) => {
                if let Some(element) = elements.get_mut(index) {
                    merge(schemas, items, element, patch);
                }
            }
            None if deletes => {}
            None => {
                let mut element = Value::Object(Map::new());
                merge(schemas, items, &mut element, patch);
                elements.push(element);
            }
        }
    }
}

fn delete_primitives(fields: &mut Map<String, Value>, list: &str, gone: &Value) {
    if let (Some(Value::Array(elements)), Value::Array(gone)) = (fields.get_mut(list), gone) {
        elements.retain(|element| !gone.contains(element));
    }
}

/// Puts elements in the patch's order; those only the server has stay before what they were before (apimachinery
/// `normalizeElementOrder`).
fn sort_like(
    elements: &mut Vec<Value>,
    server: Option<&Value>,
    order: &Value,
    merge_key: Option<&str>,
) {
    let identity =
        |value: &Value| merge_key.map_or(Some(value.clone()), |key| value.get(key).cloned());
    let place = |list: Option<&Value>, element: &Value| {
        let list = list.and_then(Value::as_array)?;
        list.iter().position(|candidate| identity(candidate) == identity(element))
    };
    let (mut patched, mut kept): (Vec<Value>, Vec<Value>) =
        elements.drain(..).partition(|element| place(Some(order), element).is_some());
    patched.sort_by_key(|element| place(Some(order), element));
    kept.sort_by_key(|element| place(server, element));
    let mut patched = patched.into_iter().peekable();
    for own in kept {
        let before = |other: &Value| matches!((place(server, &own), place(server, other)), (Some(a), Some(b)) if a < b);
        while let Some(next) = patched.next_if(|next| !before(next)) {
            elements.push(next);
        }
        elements.push(own);
    }
    elements.extend(patched);
}
