//! Watches.

use std::time::Duration;

use api::Resource;
use futures::StreamExt;

use super::kinds::{MiniPod, Pool, mini_pod, pool};
use super::{clean, created, of_case};
use crate::{
    DeletePreconditions, ListOptions, Revision, Store, StoreError, WatchEvent, WatchStream,
};

/// Reads `count` events, without bookmarks, as `+name value` and `-name`.
async fn read<R: Resource>(
    watch: &mut WatchStream<R>,
    count: usize,
    tell: impl Fn(&R) -> String,
) -> (Vec<String>, Revision) {
    let (mut story, mut revision) = (Vec::new(), Revision::default());
    while story.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        let next = next.unwrap_or_else(|_| panic!("no event after {story:?}"));
        match next.expect("the watch goes on").expect("no error") {
            WatchEvent::Applied(object) => {
                revision = object.revision();
                story.push(format!("+{}", tell(&object)));
            }
            WatchEvent::Deleted(object) => {
                revision = object.revision();
                story.push(format!("-{}", object.meta().name));
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Malformed { key, message, .. } => panic!("{key}: {message}"),
        }
    }
    (story, revision)
}

fn tell_pool(pool: &Pool) -> String {
    format!("{} {}", pool.metadata.name, pool.spec.node_selector.as_deref().unwrap_or_default())
}

async fn select_nodes(store: &impl Store, name: &str, selector: &str) {
    let mut pool = store.get::<Pool>(&api::Key::cluster(name)).await.expect("get");
    pool.spec.node_selector = Some(selector.to_owned());
    store.update(&pool).await.expect("update");
}

async fn remove(store: &impl Store, name: &str) {
    let key = api::Key::cluster(name);
    store.delete::<Pool>(&key, &DeletePreconditions::default()).await.expect("delete");
}

fn with_selector(name: &str) -> Pool {
    let mut pool = pool(name);
    pool.spec.node_selector = Some("all()".to_owned());
    pool
}

pub(super) async fn exactly_once_in_order(store: &impl Store) {
    let case = "watch";
    clean::<Pool>(store, case).await;
    created(store, case, with_selector("conf-before")).await;
    let from = store.list::<Pool>(&of_case(case)).await.expect("list").revision;
    let mut watch = store.watch::<Pool>(&of_case(case), &from).await.expect("watch");
    created(store, case, with_selector("conf-w")).await;
    for number in 0..5 {
        select_nodes(store, "conf-w", &format!("has(n{number})")).await;
    }
    remove(store, "conf-w").await;
    created(store, case, with_selector("conf-w")).await;
    remove(store, "conf-before").await;
    let (story, _) = read(&mut watch, 9, tell_pool).await;
    let expected = [
        "+conf-w all()",
        "+conf-w has(n0)",
        "+conf-w has(n1)",
        "+conf-w has(n2)",
        "+conf-w has(n3)",
        "+conf-w has(n4)",
        "-conf-w",
        "+conf-w all()",
        "-conf-before",
    ];
    assert_eq!(story, expected, "{case}");
    clean::<Pool>(store, case).await;
}

pub(super) async fn resumes(store: &impl Store) {
    let case = "resume";
    clean::<Pool>(store, case).await;
    let from = store.list::<Pool>(&of_case(case)).await.expect("list").revision;
    for name in ["conf-r1", "conf-r2", "conf-r3"] {
        created(store, case, with_selector(name)).await;
    }
    remove(store, "conf-r1").await;
    let mut watch = store.watch::<Pool>(&of_case(case), &from).await.expect("watch");
    let (story, at) = read(&mut watch, 2, tell_pool).await;
    assert_eq!(story, ["+conf-r1 all()", "+conf-r2 all()"], "{case}: later than the list");
    drop(watch);
    let mut watch = store.watch::<Pool>(&of_case(case), &at).await.expect("watch");
    let (story, at) = read(&mut watch, 2, tell_pool).await;
    assert_eq!(story, ["+conf-r3 all()", "-conf-r1"], "{case}: from the revision of an event");
    drop(watch);
    // A deletion has a revision of its own: resuming from it does not repeat it.
    let mut watch = store.watch::<Pool>(&of_case(case), &at).await.expect("watch");
    remove(store, "conf-r2").await;
    let (story, _) = read(&mut watch, 1, tell_pool).await;
    assert_eq!(story, ["-conf-r2"], "{case}: from the revision of a deletion");
    clean::<Pool>(store, case).await;
}

pub(super) async fn selected(store: &impl Store) {
    let case = "watch-selected";
    clean::<Pool>(store, case).await;
    let options = of_case(case).label("color", "red");
    let from = store.list::<Pool>(&options).await.expect("list").revision;
    let mut watch = store.watch::<Pool>(&options, &from).await.expect("watch");
    let mut pool = created(store, case, with_selector("conf-s")).await;
    for color in ["red", "blue", "red"] {
        pool.metadata.labels.insert("color".to_owned(), color.to_owned());
        pool = store.update(&pool).await.expect("update");
    }
    let (story, _) = read(&mut watch, 3, |pool: &Pool| pool.metadata.name.clone()).await;
    assert_eq!(
        story,
        ["+conf-s", "-conf-s", "+conf-s"],
        "{case}: leaving the selection is a deletion"
    );
    clean::<Pool>(store, case).await;

    let on_node = ListOptions::consistent().field("spec.nodeName", "conf-watched");
    let from = store.list::<MiniPod>(&on_node).await.expect("list").revision;
    let mut watch = store.watch::<MiniPod>(&on_node, &from).await.expect("watch");
    for (name, node) in [("conf-x", "conf-elsewhere"), ("conf-y", "conf-watched")] {
        let name = format!("{name}-{}", from.as_str());
        created(store, case, mini_pod(&name, node)).await;
    }
    let (story, _) = read(&mut watch, 1, |pod: &MiniPod| pod.metadata.name.clone()).await;
    assert_eq!(story, [format!("+conf-y-{}", from.as_str())], "{case}: by field");
    clean::<MiniPod>(store, case).await;
}

pub(super) async fn concurrent_writers(store: &impl Store) {
    let case = "concurrent";
    clean::<Pool>(store, case).await;
    created(store, case, with_selector("conf-c")).await;
    let from = store.list::<Pool>(&of_case(case)).await.expect("list").revision;
    let writer = async |number: usize| {
        let mut lost = 0;
        for round in 0..5 {
            loop {
                let mut pool = store.get::<Pool>(&api::Key::cluster("conf-c")).await.expect("get");
                let count = pool.metadata.annotations.get("conf").map_or(0, String::len);
                let marks = "x".repeat(count + 1);
                pool.metadata.annotations.insert("conf".to_owned(), marks);
                pool.spec.node_selector = Some(format!("has(w{number}r{round})"));
                match store.update(&pool).await {
                    Ok(_) => break,
                    Err(StoreError::Conflict { .. }) => lost += 1,
                    Err(error) => panic!("{case}: {error}"),
                }
            }
        }
        lost
    };
    futures::future::join_all((0..4).map(writer)).await;
    let mut watch = store.watch::<Pool>(&of_case(case), &from).await.expect("watch");
    let marks = |pool: &Pool| pool.metadata.annotations["conf"].len().to_string();
    let (story, _) = read(&mut watch, 20, marks).await;
    let expected: Vec<_> = (1..=20).map(|count| format!("+{count}")).collect();
    assert_eq!(story, expected, "{case}: no update is lost, and each is seen once");
    clean::<Pool>(store, case).await;
}
