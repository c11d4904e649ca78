use expect_test::{Expect, expect};

use super::*;

fn environment(variables: &[(&str, &str)]) -> Result<Environment, CniError> {
    Environment::read(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn refused(error: CniError, expected: Expect) {
    expected.assert_eq(&error.render("1.1.0"));
}

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/blue"),
    ("CNI_IFNAME", "eth0"),
    (
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1;IP=10.0.0.9",
    ),
];

#[test]
fn the_kubelets_environment_names_the_pod_and_the_address() {
    let read = environment(&ADD).unwrap();
    let pod = read.pod().unwrap();
    assert_eq!(
        (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()),
        ("shop", "web-0", Some("u1"))
    );
    assert_eq!(read.requested_ip().unwrap().unwrap().to_string(), "10.0.0.9");
}

#[test]
fn environments_that_can_not_be_served_name_the_variable() {
    for missing in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let variables: Vec<_> = ADD.into_iter().filter(|(name, _)| *name != missing).collect();
        let error = environment(&variables).unwrap_err();
        assert_eq!(
            (error.code, error.msg),
            (4, format!("environment variable {missing} is missing"))
        );
    }
    for (name, bad) in [
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "sixteen-octets--"),
        ("CNI_ARGS", "novalue"),
    ] {
        let mut variables: Vec<_> = ADD.into_iter().filter(|(known, _)| *known != name).collect();
        variables.push((name, bad));
        let error = environment(&variables).unwrap_err();
        assert_eq!((error.code, error.msg), (4, format!("environment variable {name} is invalid")));
    }
    let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
    assert_eq!(environment(&del).unwrap().netns, None);
}

#[test]
fn configurations_that_can_not_be_served_say_why() {
    let read = |text: &str, command| NetConf::read(text, command).unwrap_err();
    refused(
        read(r#"{"cniVersion":"0.2.0","name":"n"}"#, Command::Add),
        expect![[r#"
            {
              "cniVersion": "1.1.0",
              "code": 1,
              "msg": "cniVersion \"0.2.0\" is not supported",
              "details": "use one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
            }
        "#]],
    );
    refused(
        read(r#"{"cniVersion":"1.0.0","name":"n"}"#, Command::Gc),
        expect![[r#"
            {
              "cniVersion": "1.1.0",
              "code": 1,
              "msg": "cniVersion 1.0.0 has no such command",
              "details": "Gc exists since 1.1.0"
            }
        "#]],
    );
    assert_eq!(read("{", Command::Add).code, code::DECODING_FAILURE);
    assert_eq!(read(r#"{"cniVersion":"1.0.0","name":"-"}"#, Command::Add).code, 7);
    assert_eq!(read(r#"{"cniVersion":"1.0.0","name":"n","mtu":60}"#, Command::Add).code, 7);
    let gc = NetConf::read(r#"{"cniVersion":"1.1.0","name":"n"}"#, Command::Gc).unwrap();
    assert_eq!(gc.valid_attachments().unwrap_err().code, 7);
}

#[test]
fn the_result_takes_the_form_of_the_version_asked_for() {
    let result = CniResult {
        interfaces: vec![Iface { name: "eth0".into(), mtu: Some(1400), ..Iface::default() }],
        ips: vec![Ip {
            version: None,
            address: "10.0.0.1/32".parse().unwrap(),
            gateway: Some("169.254.1.1".parse().unwrap()),
            interface: Some(0),
        }],
        ..CniResult::default()
    };
    expect![[r#"
        {
          "cniVersion": "0.4.0",
          "interfaces": [
            {
              "name": "eth0"
            }
          ],
          "ips": [
            {
              "version": "4",
              "address": "10.0.0.1/32",
              "gateway": "169.254.1.1",
              "interface": 0
            }
          ],
          "routes": [],
          "dns": {}
        }
    "#]]
    .assert_eq(&result.render(Version::V0_4_0));
    assert!(!result.render(Version::V1_0_0).contains("version\": \"4"));
    assert!(!result.render(Version::V1_0_0).contains("mtu"));
    assert!(result.render(Version::V1_1_0).contains("\"mtu\": 1400"));
    let read: CniResult = serde_json::from_str(&result.render(Version::V0_3_1)).unwrap();
    assert_eq!(read.ips[0].address, result.ips[0].address);
}

#[test]
fn version_answers_in_the_version_asked_for() {
    expect![[r#"
        {
          "cniVersion": "1.0.0",
          "supportedVersions": [
            "0.3.0",
            "0.3.1",
            "0.4.0",
            "1.0.0",
            "1.1.0"
          ]
        }
    "#]]
    .assert_eq(&versions("1.0.0"));
}
