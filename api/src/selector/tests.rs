//! Grammar and meaning.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

const MATCHES: &[(&str, &str, bool)] = &[
    ("", "", true),
    ("all()", "a=b", true),
    ("a == 'b'", "a=b", true),
    ("a == 'b'", "", false),
    ("a != 'b'", "", true),
    ("a != 'b'", "a=b", false),
    ("a in {'x', 'b'}", "a=b", true),
    ("a in {}", "a=b", false),
    ("a not in {'x'}", "", true),
    ("a notin {\"b\",}", "a=b", false),
    ("a contains 'bc'", "a=abcd", true),
    ("a contains 'bc'", "", false),
    ("a starts with 'x'", "a=xy", true),
    ("a startswith 'x' && a endswith 'y'", "a=xy", true),
    ("!has(a)", "b=1", true),
    ("!(a == 'b' || c == 'd') && has(e)", "e=1", true),
    ("in == 'x'", "in=x", true),
    (
        "has(k8s-app) && projectcalico.org/namespace == \"it's\"",
        "k8s-app=x,projectcalico.org/namespace=it's",
        true,
    ),
    ("global()", "", true),
    ("global()", "projectcalico.org/namespace=a", false),
];

#[test]
fn absent_labels_mean_what_calico_says() {
    for (selector, have, expected) in MATCHES {
        let parsed = Selector::parse(selector).unwrap();
        assert_eq!(parsed.matches_labels(&labels(have)), *expected, "{selector} on {have}");
    }
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let cases = [
        ("a ==", "expected a value in quotes, such as 'web' at position 4"),
        ("a == b", "expected a value in quotes, such as 'web' at position 5"),
        ("a = 'b'", "expected a label, all(), has(label), '!' or '(', found '=' at position 2"),
        (
            "a",
            "expected ==, !=, in, not in, contains, starts with or ends with after 'a' at position 1",
        ),
        ("(a == 'b'", "expected ')' at position 9"),
        ("a == 'b", "the text that begins here has no closing ' at position 5"),
        ("a == 'b' c == 'd'", "expected '&&', '||' or the end of the selector at position 9"),
        ("has(", "expected a label, all(), has(label), '!' or '(', found the end at position 0"),
    ];
    for (selector, expected) in cases {
        assert_eq!(Selector::parse(selector).unwrap_err().to_string(), expected, "{selector}");
    }
    assert!(Selector::parse(&"!".repeat(10_000)).is_err());
    assert!(Selector::parse(&"(".repeat(10_000)).is_err());
}

#[test]
fn restrictions_come_from_what_must_hold() {
    let selector =
        Selector::parse("has(a) && b in {'1','2'} && c != 'x' && (d == '1' || e == '2')").unwrap();
    let found = selector.restrictions();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(found["b"], Restriction::OneOf(vec!["1".into(), "2".into()]));
}

#[test]
fn kubernetes_label_selectors_translate() {
    let selector: LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"app": "db"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "z", "operator": "Exists"}],
    }))
    .unwrap();
    let translated = Selector::from_label_selector(&selector).unwrap();
    assert_eq!(translated.to_string(), r#"app == "db" && tier not in {"x"} && has(z)"#);
    assert_eq!(Selector::from_label_selector(&LabelSelector::default()).unwrap(), Selector::ALL);
}

fn expression() -> impl Strategy<Value = Expression> {
    let name = "[a-z][a-z0-9./_-]{0,5}";
    let value = "[a-zA-Z0-9 .']{0,5}";
    let operator = prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Contains),
        Just(Operator::StartsWith),
        Just(Operator::EndsWith)
    ];
    let values = proptest::collection::btree_set(value, 0..4);
    let values = values.prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let leaf = prop_oneof![
        Just(Expression::All),
        name.prop_map(Expression::Has),
        (name, operator, value)
            .prop_map(|(name, operator, value)| Expression::Compare(name, operator, value)),
        (name, values.clone()).prop_map(|(name, values)| Expression::In(name, values)),
        (name, values).prop_map(|(name, values)| Expression::NotIn(name, values)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            proptest::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(expression in expression()) {
        let text = Selector(expression.clone()).to_string();
        prop_assert_eq!(Selector::parse(&text).unwrap().0, expression, "{}", text);
    }

    #[test]
    fn no_text_panics(text in "[a-z(){}!&|='\", \t]{0,40}|\\PC{0,20}") {
        let _ = Selector::parse(&text);
    }
}
