use std::time::Duration;

use api::{Key, Resource};
use http::StatusCode;

use super::{
    error::{Failure, Target},
    limit::TokenBucket,
    path,
};
use crate::conformance::kinds::{MiniPod, Pool};
use crate::{ListOptions, Revision};

#[test]
fn paths_follow_group_and_scope() {
    let pod = Key::namespaced("ns", "a b");
    assert_eq!(path::object(&MiniPod::KIND, &pod, None), "/api/v1/namespaces/ns/pods/a%20b");
    assert_eq!(
        path::object(&Pool::KIND, &Key::cluster("p"), Some("status")),
        "/apis/projectcalico.org/v3/ippools/p/status"
    );
    assert_eq!(path::collection(&MiniPod::KIND, None), "/api/v1/pods");
}

#[test]
fn queries_choose_where_the_answer_comes_from() {
    let cached = ListOptions::cached().label("a/b", "c").field("spec.nodeName", "n");
    assert_eq!(
        path::list_query(&cached, None, None),
        "?labelSelector=a%2Fb%3Dc&fieldSelector=spec.nodeName%3Dn&resourceVersion=0"
    );
    let consistent = ListOptions::consistent();
    assert_eq!(path::list_query(&consistent, Some(500), None), "?limit=500");
    assert_eq!(path::list_query(&consistent, Some(500), Some("x=")), "?limit=500&continue=x%3D");
    let mut floor = ListOptions::cached();
    floor.not_older_than = Some(Revision::new("7"));
    assert_eq!(
        path::list_query(&floor, None, None),
        "?resourceVersion=7&resourceVersionMatch=NotOlderThan"
    );
}

#[test]
fn status_bodies_decide_the_error() {
    let cases = [
        (404, "{}", "Pod ns/p not found"),
        (409, r#"{"reason":"AlreadyExists"}"#, "Pod ns/p already exists"),
        (409, r#"{"reason":"Conflict"}"#, "Pod ns/p was changed by someone else"),
        (410, r#"{"reason":"Expired"}"#, "revision is too old, list again"),
        (422, r#"{"message":"spec.cidr: Invalid value"}"#, "spec.cidr: Invalid value"),
        (403, r#"{"message":"no"}"#, "not allowed: no"),
        (429, r#"{"message":"later"}"#, "API server asks to slow down: later"),
        (502, "<html>", "datastore unavailable: HTTP 502 Bad Gateway <html>"),
    ];
    let target = Target { kind: "Pod", key: "ns/p".to_owned() };
    for (code, body, expected) in cases {
        let status = StatusCode::from_u16(code).unwrap();
        let error = Failure::new(status, body.as_bytes(), None).into_store_error(&target);
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_bucket_lets_a_burst_through_and_then_keeps_the_rate() {
    let bucket = TokenBucket::new(10, 5);
    let start = tokio::time::Instant::now();
    for _ in 0..5 {
        bucket.take().await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    for _ in 0..10 {
        bucket.take().await;
    }
    let elapsed = start.elapsed();
    assert!((900..=1010).contains(&elapsed.as_millis()), "{elapsed:?}");
}
