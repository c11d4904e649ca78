//! The house keeps its shape: who may import whom, file lengths, nothing private in the tree.

#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it, with the reason")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom. `docs/architecture.md` draws the same graph.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("kernel", &[]),
    // The speaker's core imports nothing; `kernel` is for voile-bgpd alone, behind the feature `bgpd`.
    ("bgp", &["kernel"]),
    ("store", &["api"]),
    ("ipam", &["api", "store"]),
    // `kernel` only behind the feature `linux`.
    ("felix", &["api", "kernel"]),
    ("cni", &["api", "kernel"]),
    ("ctl", &["api", "store", "ipam", "felix", "bgp"]),
    ("node", &["api", "store", "bgp", "ipam", "felix", "cni", "kernel"]),
    ("lab", &["api", "store", "bgp", "ipam", "felix", "cni", "kernel", "node"]),
    ("xtask", &[]),
    // Programs that measure: they drive the others as processes, over the kernel's rim, and the allocator in place.
    ("xtask/bench", &["kernel", "api", "store", "ipam"]),
];

/// Dependencies that only a feature may bring in.
const OPTIONAL: &[(&str, &str)] =
    &[("bgp", "kernel"), ("felix", "kernel"), ("bgp", "tokio"), ("felix", "tokio")];

const MAX_LINES: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn dependencies(krate: &str) -> Vec<(String, String)> {
    let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]"
            && let Some((name, rest)) = line.split_once(['.', ' ', '='])
        {
            found.push((name.to_owned(), rest.to_owned()));
        }
    }
    found
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    for (krate, allowed) in MAY_IMPORT {
        for (name, _) in dependencies(krate) {
            if MAY_IMPORT.iter().any(|(member, _)| *member == name) {
                assert!(allowed.contains(&name.as_str()), "`{krate}` must not depend on `{name}`");
            }
        }
    }
}

#[test]
fn cores_get_their_rims_only_by_feature() {
    for (krate, name) in OPTIONAL {
        for (dependency, rest) in dependencies(krate) {
            if dependency == *name {
                assert!(rest.contains("optional = true"), "`{krate}`: `{name}` must be optional");
            }
        }
    }
}

#[test]
fn files_end_before_attention_does() {
    let mut long = Vec::new();
    walk(&root(), &mut |path, text| {
        let lines = text.lines().count();
        let name = path.file_name().unwrap().to_string_lossy();
        if lines > MAX_LINES
            && !name.starts_with("tests")
            && !path.components().any(|c| c.as_os_str() == "tests")
        {
            long.push(format!("{} ({lines} lines)", path.display()));
        }
    });
    let known = fs::read_to_string(root().join("tests/long-files.txt")).unwrap();
    long.retain(|row| {
        let file = row.split(" (").next().unwrap();
        !known
            .lines()
            .any(|line| !line.is_empty() && file.ends_with(line.split('#').next().unwrap().trim()))
    });
    assert!(
        long.is_empty(),
        "longer than {MAX_LINES} lines, split or list with a reason in tests/long-files.txt:\n{}",
        long.join("\n")
    );
}

#[test]
fn modules_say_what_they_are() {
    let mut silent = Vec::new();
    walk(&root(), &mut |path, text| {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let of_tests =
            path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        if !of_tests && !first.starts_with("//!") && !first.starts_with("#!") {
            silent.push(path.display().to_string());
        }
    });
    assert!(silent.is_empty(), "these files do not start with `//!`: {}", silent.join(", "));
}

/// A test that is renamed takes its line in the table of restarts with it.
#[test]
fn the_table_of_restarts_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/reference/restarts.md")).unwrap();
    let mut sources = String::new();
    walk(&root(), &mut |_, text| sources.push_str(text));
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.contains("| Test |")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let words = tests.split('`').skip(1).step_by(2);
        let names: Vec<&str> = words.filter(|word| !["bgp", "felix"].contains(word)).collect();
        assert!(!names.is_empty(), "no test in {row}");
        for name in names {
            let is_function = sources.contains(&format!("fn {name}()"));
            let is_scenario = sources.contains(&format!("scenario(\"{name}\""));
            let is_trial = sources.contains(&format!("\"{name}\";"));
            assert!(is_function || is_scenario || is_trial, "there is no test {name}");
            named += 1;
        }
    }
    assert!(named >= 30, "{named}");
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
