use std::collections::BTreeMap;

use api::{KindInfo, NoStatus, Object, Scope, Spec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Stored, merge::three_way};

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct BlockSpec {
    cidr: String,
    sequence_number: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    map: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<String>,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
struct Attribute {
    id: String,
}

impl Spec for BlockSpec {
    const KIND: KindInfo = KindInfo {
        group: "example.test",
        version: "v1",
        kind: "Block",
        plural: "blocks",
        scope: Scope::Cluster,
    };
    type Status = NoStatus;
}

fn stored(raw: Value) -> Stored<Object<BlockSpec>> {
    Stored::parse(raw.into()).unwrap()
}

#[test]
fn unknown_fields_survive_and_removed_fields_go() {
    let mut object = stored(json!({
        "metadata": {"name": "b", "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
        "spec": {
            "cidr": "10.0.0.0/26", "affinity": "host:a", "future": {"deep": [1]},
            "map": {"1": 1}, "sequenceNumber": u64::MAX,
            "attributes": [{"id": "one", "more": 1}, {"id": "two", "more": 2}, {"id": "three", "more": 3}],
        },
        "alien": true,
    }));
    object.spec.affinity = None;
    object.spec.map.clear();
    object.spec.attributes.remove(0);
    object.spec.attributes.push(Attribute { id: "four".to_owned() });
    object.metadata.labels.insert("l".to_owned(), "v".to_owned());
    assert_eq!(
        object.body().unwrap(),
        json!({
            "apiVersion": "example.test/v1", "kind": "Block",
            "metadata": {"name": "b", "resourceVersion": "7", "managedFields": [{"manager": "x"}], "labels": {"l": "v"}},
            "spec": {
                "cidr": "10.0.0.0/26", "future": {"deep": [1]}, "sequenceNumber": u64::MAX,
                "attributes": [{"id": "two", "more": 2}, {"id": "three", "more": 3}, {"id": "four"}],
            },
            "alien": true,
        })
    );
}

#[test]
fn an_element_changed_in_place_keeps_its_unknown_fields() {
    let mut object = stored(
        json!({"metadata": {"name": "b"}, "spec": {"attributes": [{"id": "one", "more": 1}]}}),
    );
    object.spec.attributes[0].id = "uno".to_owned();
    assert_eq!(object.body().unwrap()["spec"]["attributes"], json!([{"id": "uno", "more": 1}]));
}

#[test]
fn a_number_above_two_to_the_53_is_exact() {
    let mut object = stored(
        json!({"metadata": {"name": "b"}, "spec": {"sequenceNumber": 1_790_000_000_000_000_001_u64}}),
    );
    object.spec.sequence_number += 1;
    let body = object.body().unwrap();
    assert_eq!(body["spec"]["sequenceNumber"].as_u64(), Some(1_790_000_000_000_000_002));
    assert!(body.to_string().contains("1790000000000000002"));
}

#[test]
fn an_object_without_raw_form_cannot_be_written() {
    let object = stored(json!({"metadata": {"name": "b"}})).without_raw();
    assert!(object.body().unwrap_err().to_string().contains("read it again"));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Adds a key that no typed object knows to every object, at every depth.
fn with_alien(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: serde_json::Map<_, _> =
                map.iter().map(|(k, v)| (k.clone(), with_alien(v))).collect();
            map.insert("zz-alien".to_owned(), json!(1));
            Value::Object(map)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_alien).collect()),
        other => other.clone(),
    }
}

fn without_alien(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(k, _)| *k != "zz-alien")
                .map(|(k, v)| (k.clone(), without_alien(v)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_alien).collect()),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn a_type_that_knows_everything_writes_exactly_what_it_has(base in json_value(), now in json_value()) {
        prop_assert_eq!(three_way(&base, &base, &now), now);
    }

    #[test]
    fn nothing_changed_writes_back_what_was_read(raw in json_value(), base in json_value()) {
        prop_assert_eq!(three_way(&raw, &base, &base), raw);
    }

    #[test]
    fn known_part_is_as_wanted_and_the_root_keeps_aliens(base in json_value(), now in json_value()) {
        let raw = with_alien(&base);
        let merged = three_way(&raw, &base, &now);
        prop_assert_eq!(&without_alien(&merged), &now);
        if base.is_object() && now.is_object() {
            prop_assert_eq!(&merged["zz-alien"], &json!(1));
        }
    }
}
