//! The lab as a test: real daemons, a real fabric, all seven stages, and no trace afterwards.

#![expect(clippy::unwrap_used, reason = "a test: what fails here fails it, with the reason")]

use std::{path::Path, process::Command};

use voile_tests::{built, can_make_namespaces, skip};

fn run(topology: &str, name: &str) {
    if !can_make_namespaces() {
        skip(name, "needs root");
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/containerlab").join(topology);
    let output = Command::new(built("voile-lab"))
        .args(["up", "--name", name, "-f"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" passed, 0 failed"), "{text}");
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|namespace| namespace.starts_with(&format!("{name}-")))
        .collect();
    assert!(left.is_empty(), "the lab left namespaces behind: {left:?}");
}

#[test]
fn two_labs_side_by_side_pass_every_stage() {
    std::thread::scope(|scope| {
        scope.spawn(|| run("leaf-spine.clab.yml", "vtlab1"));
        if Path::new("/usr/sbin/bird").exists() {
            run("bird.clab.yml", "vtlab2");
        } else {
            skip("the lab with BIRD as leaves", "BIRD is not installed");
        }
    });
}
