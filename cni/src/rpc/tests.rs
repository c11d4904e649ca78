use expect_test::expect;

use super::*;

fn attachment() -> Attachment {
    Attachment { container_id: "c1".into(), ifname: "eth0".into() }
}

#[test]
fn the_wire_format_stays_what_it_is() {
    let pod = Pod { namespace: "shop".into(), name: "web-0".into(), ..Pod::default() };
    let add = Request::Add(Add {
        attachment: attachment(),
        netns: "/run/netns/blue".into(),
        pod: Some(pod),
        network: "k8s-pod-network".into(),
        requested_ips: vec![],
        mtu: None,
    });
    let wired = Request::Wired(Wired {
        attachment: attachment(),
        container_mac: crate::HOST_MAC,
        host_ifindex: 7,
    });
    let wiring = Wiring::new("cali1", 1400, vec!["10.0.0.1/32".parse().unwrap()]);
    let mut text = String::new();
    for request in [add, wired, Request::Status] {
        let frame = encode_request(&request).unwrap();
        let (contents, used) = split_frame(&frame).unwrap().unwrap();
        assert_eq!(used, frame.len());
        assert_eq!(decode_request(contents).unwrap(), request);
        text += &format!("{}\n", String::from_utf8_lossy(contents));
    }
    for response in
        [Response::Wire(wiring), Response::Done, Response::Error(CniError::new(11, "m", "d"))]
    {
        let frame = encode_response(&response).unwrap();
        assert_eq!(decode_response(&frame[HEADER..]).unwrap(), response);
        text += &format!("{}\n", String::from_utf8_lossy(&frame[HEADER..]));
    }
    expect![[r#"
        {"protocol":1,"request":"add","containerID":"c1","ifname":"eth0","netns":"/run/netns/blue","pod":{"namespace":"shop","name":"web-0"},"network":"k8s-pod-network","requestedIps":[],"mtu":null}
        {"protocol":1,"request":"wired","containerID":"c1","ifname":"eth0","containerMac":"ee:ee:ee:ee:ee:ee","hostIfindex":7}
        {"protocol":1,"request":"status"}
        {"response":"wire","hostInterface":"cali1","mtu":1400,"hostMac":"ee:ee:ee:ee:ee:ee","addresses":["10.0.0.1/32"],"gateways":["169.254.1.1"]}
        {"response":"done"}
        {"response":"error","code":11,"msg":"m","details":"d"}
    "#]].assert_eq(&text);
}

#[test]
fn strangers_get_an_answer_and_no_memory() {
    let Err(Response::Error(error)) = decode_request(br#"{"protocol":9,"request":"dance"}"#) else {
        panic!("another version was accepted");
    };
    assert_eq!(error.code, code::TRY_AGAIN);
    assert!(decode_request(b"GET / HTTP/1.1").is_err());
    assert!(matches!(frame_length([0xff; 4]), Err(FrameError::TooLong(_))));
    assert!(split_frame(&[0, 0, 0, 9, b'{']).unwrap().is_none());
    assert!(split_frame(&[0, 0]).unwrap().is_none());
}
