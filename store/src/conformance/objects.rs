//! Single objects and lists.

use api::{Key, Resource};
use serde_json::json;

use super::kinds::{
    MiniBlock, MiniPod, NAMESPACE, Pool, WidePool, WidePoolSpec, mini_block, mini_pod, pool,
};
use super::{clean, created, of_case};
use crate::{DeletePreconditions, ListOptions, Revision, Store, StoreError, Stored};

pub(super) async fn create_get_update(store: &impl Store) {
    let case = "create-get-update";
    clean::<Pool>(store, case).await;
    let first = created(store, case, pool("conf-a")).await;
    assert!(first.metadata.uid.is_some(), "{case}: a created object has a uid");
    assert!(first.metadata.creation_timestamp.is_some(), "{case}: and a creation time");
    let read = store.get::<Pool>(&first.key()).await.expect("get");
    assert_eq!(*read, *first, "{case}: get returns what create returned");

    let mut changed = read.clone();
    changed.spec.node_selector = Some("has(x)".to_owned());
    let second = store.update(&changed).await.expect("update");
    assert_eq!(second.spec.node_selector.as_deref(), Some("has(x)"));
    assert_ne!(second.revision(), first.revision(), "{case}: an update has a new revision");
    assert_eq!(second.metadata.uid, first.metadata.uid, "{case}: the uid stays");

    let same = store.update(&second).await.expect("update without a change");
    assert_eq!(same.revision(), second.revision(), "{case}: nothing changed, nothing written");
    clean::<Pool>(store, case).await;
}

pub(super) async fn errors(store: &impl Store) {
    let case = "errors";
    clean::<Pool>(store, case).await;
    let key = Key::cluster("conf-errors");
    let missing = store.get::<Pool>(&key).await.expect_err("get of nothing");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{case}: {missing}");

    let first = created(store, case, pool("conf-errors")).await;
    let twice = store.create(&pool("conf-errors")).await.expect_err("second create");
    assert!(matches!(twice, StoreError::AlreadyExists { .. }), "{case}: {twice}");

    let mut newer = first.clone();
    newer.spec.node_selector = Some("has(z)".to_owned());
    store.update(&newer).await.expect("update");
    let mut stale = first.clone();
    stale.spec.node_selector = Some("has(y)".to_owned());
    let lost = store.update(&stale).await.expect_err("update from an old revision");
    assert!(matches!(lost, StoreError::Conflict { .. }), "{case}: {lost}");

    let blind = Stored::<Pool>::parse(
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
            "metadata": {"name": "conf-errors"}, "spec": {"cidr": "10.0.0.0/16"}
        })
        .into(),
    )
    .expect("parse");
    let refused = store.update(&blind).await.expect_err("update without a revision");
    assert!(matches!(refused, StoreError::Invalid { .. }), "{case}: {refused}");

    store.delete::<Pool>(&key, &DeletePreconditions::default()).await.expect("delete");
    let gone = store.update(&stale).await.expect_err("update of a deleted object");
    assert!(
        matches!(gone, StoreError::NotFound { .. } | StoreError::Conflict { .. }),
        "{case}: {gone}"
    );
    let again = store.delete::<Pool>(&key, &DeletePreconditions::default()).await;
    let again = again.expect_err("second delete");
    assert!(matches!(again, StoreError::NotFound { .. }), "{case}: {again}");
}

pub(super) async fn delete_preconditions(store: &impl Store) {
    let case = "delete-preconditions";
    clean::<Pool>(store, case).await;
    let first = created(store, case, pool("conf-delete")).await;
    let other_uid = DeletePreconditions { uid: Some("no-such-uid".to_owned()), revision: None };
    let old = DeletePreconditions { uid: None, revision: Some(first.revision()) };
    let mut newer = first.clone();
    newer.spec.node_selector = Some("has(z)".to_owned());
    let newer = store.update(&newer).await.expect("update");
    for wrong in [&other_uid, &old] {
        let refused = store.delete::<Pool>(&first.key(), wrong).await.expect_err("delete");
        assert!(matches!(refused, StoreError::Conflict { .. }), "{case}: {refused}");
    }
    let right =
        DeletePreconditions { uid: newer.metadata.uid.clone(), revision: Some(newer.revision()) };
    store.delete::<Pool>(&first.key(), &right).await.expect("delete as it is");
    let recreated = created(store, case, pool("conf-delete")).await;
    assert_ne!(recreated.metadata.uid, first.metadata.uid, "{case}: a new life has a new uid");
    clean::<Pool>(store, case).await;
}

pub(super) async fn unknown_fields(store: &impl Store) {
    let case = "unknown-fields";
    clean::<Pool>(store, case).await;
    let spec = WidePoolSpec { cidr: "10.0.0.0/16".to_owned(), nat_outgoing: true, block_size: 28 };
    let wide = created(store, case, WidePool::new("conf-wide", spec)).await;
    let mut narrow = store.get::<Pool>(&wide.key()).await.expect("get");
    narrow.spec.node_selector = Some("has(x)".to_owned());
    narrow.metadata.annotations.insert("conf".to_owned(), "1".to_owned());
    store.update(&narrow).await.expect("update");
    let listed = store.list::<Pool>(&of_case(case)).await.expect("list");
    let mut narrow = listed.items[0].clone();
    narrow.spec.node_selector = Some("has(y)".to_owned());
    narrow.metadata.annotations.clear();
    store.update(&narrow).await.expect("update of a listed object");
    let after = store.get::<WidePool>(&wide.key()).await.expect("get");
    assert!(after.spec.nat_outgoing, "{case}: a field that the type does not know is kept");
    assert_eq!(after.spec.block_size, 28, "{case}: and another");
    assert!(after.metadata.annotations.is_empty(), "{case}: what was removed is gone");
    clean::<Pool>(store, case).await;
}

pub(super) async fn large_numbers(store: &impl Store) {
    let case = "large-numbers";
    clean::<MiniBlock>(store, case).await;
    // The largest that a CRD's int64 can hold; 2^53 and a bit would do.
    for number in [(1_u64 << 53) + 1, u64::try_from(i64::MAX).unwrap_or_default()] {
        let name = format!("conf-block-{number}");
        let block = created(store, case, mini_block(&name, number)).await;
        assert_eq!(block.spec.sequence_number, number, "{case}: exact after create");
        let mut block = store.get::<MiniBlock>(&block.key()).await.expect("get");
        assert_eq!(block.spec.allocations, [None, Some(0), None, None], "{case}: nulls are kept");
        assert_eq!(block.spec.sequence_number_for_allocation["1"], number);
        block.spec.sequence_number -= 1;
        let block = store.update(&block).await.expect("update");
        assert_eq!(block.spec.sequence_number, number - 1, "{case}: exact after update");
    }
    clean::<MiniBlock>(store, case).await;
}

pub(super) async fn status_is_apart(store: &impl Store) {
    let case = "status";
    clean::<Pool>(store, case).await;
    let condition = |reason: &str| {
        json!({"conditions": [{"type": "Allocatable", "status": "True", "reason": reason,
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    };
    let mut wanted = pool("conf-status");
    wanted.status = Some(condition("AtCreation"));
    let pool = created(store, case, wanted).await;
    assert!(pool.status.is_none(), "{case}: a create does not write the status");

    let mut both = pool.clone();
    both.spec.node_selector = Some("has(x)".to_owned());
    both.status = Some(condition("OK"));
    let pool = store.update_status(&both).await.expect("update status");
    assert_eq!(pool.status, Some(condition("OK")), "{case}: the status is written");
    assert_ne!(pool.spec.node_selector.as_deref(), Some("has(x)"), "{case}: the spec is not");

    let mut both = pool.clone();
    both.spec.node_selector = Some("has(y)".to_owned());
    both.status = Some(condition("Other"));
    let pool = store.update(&both).await.expect("update");
    assert_eq!(pool.status, Some(condition("OK")), "{case}: the status is not written");
    assert_eq!(pool.spec.node_selector.as_deref(), Some("has(y)"), "{case}: the spec is");
    clean::<Pool>(store, case).await;
}

pub(super) async fn patches(store: &impl Store) {
    let case = "patch";
    clean::<MiniPod>(store, case).await;
    let pod = created(store, case, mini_pod("conf-patch", "conf-node")).await;
    let annotate = json!({"metadata": {"annotations": {"conf/a": "1", "conf/b": "2"}}});
    // Calico writes a pod's addresses through the status sub-resource: annotations pass there too.
    let patched = store.patch::<MiniPod>(&pod.key(), Some("status"), &annotate).await;
    assert_eq!(patched.expect("patch").metadata.annotations["conf/a"], "1", "{case}");
    let removal = json!({"metadata": {"annotations": {"conf/b": null}}});
    let patched = store.patch::<MiniPod>(&pod.key(), None, &removal).await.expect("patch");
    assert_eq!(patched.metadata.annotations["conf/a"], "1", "{case}: the rest stays");
    assert!(!patched.metadata.annotations.contains_key("conf/b"), "{case}: null removes");
    let missing = Key::namespaced(NAMESPACE, "conf-none");
    let missing = store.patch::<MiniPod>(&missing, None, &annotate).await.expect_err("patch");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{case}: {missing}");
    clean::<MiniPod>(store, case).await;
}

pub(super) async fn namespaced(store: &impl Store) {
    let case = "namespaced";
    clean::<MiniPod>(store, case).await;
    for (name, node) in [("conf-1", "conf-n1"), ("conf-2", "conf-n2"), ("conf-3", "conf-n1")] {
        created(store, case, mini_pod(name, node)).await;
    }
    let names = async |options: ListOptions| {
        let listing = store.list::<MiniPod>(&options).await.expect("list");
        listing.items.iter().map(|pod| pod.key().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(of_case(case)).await, ["conf-ns/conf-1", "conf-ns/conf-2", "conf-ns/conf-3"]);
    assert_eq!(names(of_case(case).namespace("conf-other")).await, [""; 0], "{case}");
    assert_eq!(names(of_case(case).namespace(NAMESPACE)).await.len(), 3, "{case}");
    let on_node = of_case(case).field("spec.nodeName", "conf-n1");
    assert_eq!(names(on_node).await, ["conf-ns/conf-1", "conf-ns/conf-3"], "{case}: by field");
    let named = of_case(case).field("metadata.name", "conf-2");
    assert_eq!(names(named).await, ["conf-ns/conf-2"], "{case}: by name");
    let mut cached = of_case(case);
    cached.cached = true;
    cached.not_older_than =
        Some(store.list::<MiniPod>(&of_case(case)).await.expect("list").revision);
    assert_eq!(names(cached).await.len(), 3, "{case}: a cached list not older than a revision");
    clean::<MiniPod>(store, case).await;
}

pub(super) async fn many(store: &impl Store) {
    let case = "many";
    clean::<MiniBlock>(store, case).await;
    let names: Vec<String> = (0..620).map(|number| format!("conf-many-{number:04}")).collect();
    for chunk in names.chunks(20) {
        let batch = chunk.iter().map(|name| created(store, case, mini_block(name, 1)));
        futures::future::join_all(batch).await;
    }
    let listing = store.list::<MiniBlock>(&of_case(case)).await.expect("list");
    let listed: Vec<_> = listing.items.iter().map(|block| block.metadata.name.clone()).collect();
    assert_eq!(listed, names, "{case}: every page, in key order");
    assert_ne!(listing.revision, Revision::default(), "{case}: a list has a revision");
    clean::<MiniBlock>(store, case).await;
    let empty = store.list::<MiniBlock>(&of_case(case)).await.expect("list");
    assert!(empty.items.is_empty(), "{case}");
    assert_ne!(empty.revision, Revision::default(), "{case}: an empty list too");
}
