use std::path::Path;

use expect_test::expect_file;
use serde_json::Value;

/// `UPDATE_EXPECT=1 cargo test -p api` writes them anew.
#[test]
fn files_in_deploy_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/crds");
    let files = super::files();
    assert_eq!(files.len(), 24);
    for (name, text) in files {
        expect_file![folder.join(name)].assert_eq(&text);
    }
}

fn walk(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    for key in ["items", "additionalProperties"] {
        if node[key].is_object() {
            walk(&format!("{path}[]"), &node[key], visit);
        }
    }
}

#[test]
fn every_schema_is_structural_and_documented() {
    for crd in super::all() {
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        walk(kind, root, &mut |path, node| {
            let either = node["x-kubernetes-int-or-string"] == true;
            assert!(node["type"].is_string() || either, "{path} has no type: {node}");
            for key in ["$ref", "oneOf", "allOf", "const", "$schema", "title", "$defs"] {
                assert!(node.get(key).is_none(), "{path} has {key}");
            }
            assert!(node.get("anyOf").is_none() || either, "{path} has anyOf");
            let documented = node["description"].is_string();
            let leaf = path.ends_with("[]") || path.matches('.').count() < 2;
            assert!(documented || leaf, "{path} has no description");
        });
    }
}

#[test]
fn kinds_are_unique_and_found_by_name() {
    let mut names: Vec<String> =
        super::all().iter().map(|crd| crd["metadata"]["name"].to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 24);
    assert!(super::find("ippools", "projectcalico.org").is_some());
    assert!(super::find("ippools", "example.org").is_none());
}
