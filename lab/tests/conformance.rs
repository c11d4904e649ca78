//! The store's conformance suite against the lab's own API server: what holds there holds on a real one.

use lab::apiserver::{Options, Server, kubeconfig};
use store::{
    conformance,
    kube::{KubeOptions, KubeStore},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labs_api_server_passes_the_suite_of_the_store() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig(&url, "secret")).unwrap();
    let server = Server::new(Options { crds: api::crd::all(), ..Options::new("secret") });
    tokio::spawn(async move { server.serve(listener).await });
    let mut options = KubeOptions::default();
    options.rate = None;
    let store = KubeStore::from_kubeconfig(path, None, options).await.unwrap();
    conformance::run(async || store.clone()).await;
    // On a server that somebody used already, too.
    conformance::run(async || store.clone()).await;
}
