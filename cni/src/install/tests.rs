use expect_test::expect;

use super::*;

#[test]
fn both_files_appear_whole_and_only_change_when_needed() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, "program").unwrap();
    // Set-user-id is not copied.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o4755)).unwrap();
    let (bin, etc) = (folder.path().join("bin"), folder.path().join("net.d"));
    assert!(install_binary(&source, &bin).unwrap());
    assert!(!install_binary(&source, &bin).unwrap());
    let mode = fs::metadata(bin.join(BINARY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);

    let conflist =
        Conflist { socket: "/run/voile/cni.sock".into(), mtu: Some(1450), portmap: true };
    assert!(install_conflist(&conflist, &etc).unwrap());
    expect![[r#"
        {
          "cniVersion": "1.0.0",
          "name": "k8s-pod-network",
          "plugins": [
            {
              "type": "voile-cni",
              "socket": "/run/voile/cni.sock",
              "capabilities": {
                "ips": true
              },
              "mtu": 1450
            },
            {
              "type": "portmap",
              "snat": true,
              "capabilities": {
                "portMappings": true
              }
            }
          ]
        }
    "#]]
    .assert_eq(&fs::read_to_string(etc.join(CONFLIST)).unwrap());
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
    remove_conflist(&etc).unwrap();
    remove_conflist(&etc).unwrap();
}
