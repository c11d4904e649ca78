//! The embedded API server under real `kubectl`s: what a user types, and what a user then reads.
//!
//! `kubectl` is taken from PATH, and once more from `KUBEBUILDER_ASSETS` if that is set; without any the tests say so and pass.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that waits for kubectl"
)]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use expect_test::expect;
use lab::apiserver::{FieldError, Options, Server, kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A CRD with one of everything that schemas of ours use.
fn widgets() -> Value {
    let peers = json!({
        "type": "array",
        "items": {
            "type": "object", "required": ["ip"],
            "properties": {"ip": {"type": "string", "format": "ipv4"}, "weight": {"type": "integer", "default": 1}},
        },
    });
    let spec = json!({
        "type": "object", "required": ["cidr"],
        "properties": {
            "cidr": {"type": "string", "format": "cidr", "description": "The prefix."},
            "size": {"type": "integer", "minimum": 20, "maximum": 32, "default": 26},
            "color": {"type": "string", "enum": ["red", "green"]},
            "port": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "peers": peers,
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wg"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"},
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "properties": {
                        "spec": spec,
                        "status": {"type": "object", "properties": {"used": {"type": "integer"}}},
                    },
                }},
            }],
        },
    })
}

fn no_loopback(
    kind: &str,
    object: &Value,
    _others: &mut dyn Iterator<Item = &Value>,
) -> Vec<FieldError> {
    let cidr = object.pointer("/spec/cidr").and_then(Value::as_str).unwrap_or_default();
    if kind == "Widget" && cidr.starts_with("127.") {
        return vec![FieldError::invalid("spec.cidr", "must not be loopback")];
    }
    Vec::new()
}

/// A server on a loopback port and a kubectl that talks to it.
struct Lab {
    kubectl: PathBuf,
    folder: TempDir,
    address: String,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn start(kubectl: &Path, crds: Vec<Value>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let folder = TempDir::new().unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let url = format!("http://{address}");
        fs::write(folder.path().join("kubeconfig"), kubeconfig(&url, "secret")).unwrap();
        let server =
            Server::new(Options { crds, admission: no_loopback, ..Options::new("secret") });
        runtime.spawn(async move { server.serve(listener).await });
        Self { kubectl: kubectl.to_owned(), folder, address, runtime }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        let home = self.folder.path();
        command
            .args(args)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("HOME", home)
            .env("KUBE_EDITOR", "sed -i s/TCP/UDP/");
        command
    }

    /// What kubectl prints, errors included; the age of an object is a second at most.
    fn run(&self, line: &str) -> String {
        let args: Vec<&str> = line.split(' ').collect();
        printed(&self.command(&args).output().unwrap())
    }

    /// Asks for a path. kubectl 1.32 drops the server's path (our token) from raw requests, 1.36 does not.
    fn raw(&self, path: &str) -> String {
        let plain = self.run(&format!("get --raw {path}"));
        if plain.contains("Unauthorized") {
            self.run(&format!("get --raw /secret{path}"))
        } else {
            plain
        }
    }

    fn feed(&self, line: &str, manifest: &str) -> String {
        let args: Vec<&str> = line.split(' ').collect();
        let mut command = self.command(&args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("---\n{manifest}\n").as_bytes()).unwrap();
        printed(&child.wait_with_output().unwrap())
    }

    fn apply(&self, manifest: &str) -> String {
        self.feed("apply -f -", manifest)
    }

    fn start_command(&self, line: &str) -> Child {
        let args: Vec<&str> = line.split(' ').collect();
        let mut command = self.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        thread::sleep(Duration::from_millis(700));
        child
    }
}

fn printed(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8(text).unwrap();
    let ages = |word: &str| {
        word.len() >= 2 && word.ends_with('s') && word.trim_end_matches('s').parse::<u8>().is_ok()
    };
    let mut lines = String::new();
    for line in text.lines() {
        let line: Vec<&str> =
            line.split(' ').map(|word| if ages(word) { "AGE" } else { word }).collect();
        lines.push_str(line.join(" ").trim_end());
        lines.push('\n');
    }
    lines
}

/// Runs a story with each kubectl there is, on a server of its own.
fn with_each_kubectl(crds: &[Value], story: impl Fn(&Lab)) {
    let mut found = Vec::new();
    if Command::new("kubectl").args(["version", "--client"]).output().is_ok() {
        found.push(PathBuf::from("kubectl"));
    }
    if let Some(folder) = env::var_os("KUBEBUILDER_ASSETS") {
        found.push(Path::new(&folder).join("kubectl"));
    }
    if found.is_empty() {
        eprintln!("skipped: no kubectl on PATH and no KUBEBUILDER_ASSETS");
    }
    for kubectl in found {
        let lab = Lab::start(&kubectl, crds.to_vec());
        story(&lab);
        lab.runtime.shutdown_background();
    }
}

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, \
    spec: {nodeName: n1, containers: [{name: c, image: busybox, ports: [{containerPort: 80}]}]}}";
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
    spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80, protocol: TCP}]}]}}";
const RUNNING: &str = r#"{"status":{"phase":"Running","podIP":"10.244.0.9","podIPs":[{"ip":"10.244.0.9"}],
    "conditions":[{"type":"Ready","status":"True"}],
    "containerStatuses":[{"name":"c","ready":true,"restartCount":0,"state":{"running":{}}}]}}"#;

#[test]
fn apply_creates_then_leaves_alone_then_changes() {
    with_each_kubectl(&[], |lab| {
        let first = lab.apply(POLICY);
        let again = lab.apply(POLICY);
        let changed = lab.apply(&POLICY.replace("80", "443"));
        expect![[r#"
            networkpolicy.networking.k8s.io/p created
            networkpolicy.networking.k8s.io/p unchanged
            networkpolicy.networking.k8s.io/p configured
        "#]]
        .assert_eq(&(first + &again + &changed));
        expect![[r#"
            {"ingress":[{"ports":[{"port":443,"protocol":"TCP"}]}],"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Ingress"]}
        "#]]
        .assert_eq(&lab.run("get netpol p -o jsonpath={.spec}"));
        let diff = lab.feed("diff -f -", &POLICY.replace("80", "8080"));
        assert!(diff.contains("-    - port: 443") && diff.contains("+    - port: 8080"), "{diff}");
    });
}

/// The texts are those of kube-apiserver 1.36.2 for the same manifests.
#[test]
fn mistakes_are_refused_in_the_words_of_a_real_server() {
    with_each_kubectl(&[], |lab| {
        let typo = lab.apply(&POLICY.replace("protocol: TCP", "protocl: TCP"));
        let of_type = lab.apply(&POD.replace("containerPort: 80", "containerPort: \"80\""));
        let missing = lab.apply("{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {}}");
        let name = lab.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: Q_}}");
        let value = lab.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80, protocol: tcp}]}}",
        );
        let namespace = lab.apply(&POD.replace("name: web,", "name: web, namespace: nope,"));
        lab.apply(POD);
        let exists = lab.feed("create -f -", POD);
        let stale = lab
            .feed("replace -f -", &POD.replace("name: web,", "name: web, resourceVersion: \"1\","));
        let absent = lab.run("get pod nope");
        let selector = lab.run("get pods --field-selector spec.foo=bar");
        expect![[r#"
            Error from server (BadRequest): error when creating "STDIN": NetworkPolicy in version "v1" cannot be handled as a NetworkPolicy: strict decoding error: unknown field "spec.ingress[0].ports[0].protocl"
            Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32
            The Pod "web" is invalid: spec.containers: Required value
            The ConfigMap "Q_" is invalid: metadata.name: Invalid value: "Q_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            The Service "s" is invalid: spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"
            Error from server (NotFound): error when creating "STDIN": namespaces "nope" not found
            Error from server (AlreadyExists): error when creating "STDIN": pods "web" already exists
            Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on pods "web": the object has been modified; please apply your changes to the latest version and try again
            Error from server (NotFound): pods "nope" not found
            Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.foo=bar": field label not supported: spec.foo
        "#]]
        .assert_eq(&[typo, of_type, missing, name, value, namespace, exists, stale, absent, selector].concat());
    });
}

#[test]
fn tables_have_the_usual_columns() {
    with_each_kubectl(&[], |lab| {
        lab.apply(POD);
        lab.run(&format!(
            "patch pod web --subresource status --type merge -p {}",
            RUNNING.replace([' ', '\n'], "")
        ));
        lab.apply("{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {node-role.kubernetes.io/worker: \"\"}}}");
        lab.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: web}, ports: [{port: 80}]}}");
        lab.apply(POLICY);
        expect![[r#"
            NAME      READY   STATUS    RESTARTS   AGE   IP           NODE   NOMINATED NODE   READINESS GATES
            pod/web   1/1     Running   0          AGE    10.244.0.9   n1     <none>           <none>

            NAME      STATUS    ROLES    AGE   VERSION   INTERNAL-IP   EXTERNAL-IP   OS-IMAGE    KERNEL-VERSION   CONTAINER-RUNTIME
            node/n1   Unknown   worker   AGE              <none>        <none>        <unknown>   <unknown>        <unknown>

            NAME        TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE   SELECTOR
            service/s   ClusterIP   10.96.0.16   <none>        80/TCP    AGE    app=web

            NAME                                POD-SELECTOR   AGE
            networkpolicy.networking.k8s.io/p   app=web        AGE
        "#]]
        .assert_eq(&lab.run("get pod,node,service,networkpolicy -o wide"));
        let all = lab.run("get all");
        assert!(all.contains("pod/web") && all.contains("service/s"), "{all}");
        let resources = lab.run("api-resources -o name");
        assert!(resources.contains("networkpolicies.networking.k8s.io\n"), "{resources}");
    });
}

#[test]
fn patches_labels_and_edits() {
    with_each_kubectl(&[], |lab| {
        lab.apply(POLICY);
        lab.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{name: a, port: 80}]}}");
        let mut seen = lab.run("label netpol p x=y");
        seen += &lab.run(r#"patch svc s -p {"spec":{"ports":[{"name":"b","port":81}]}}"#);
        seen += &lab.run("get svc s -o jsonpath={.spec.ports[*].name}");
        seen +=
            &lab.run(r#"patch svc s --type merge -p {"spec":{"ports":[{"name":"c","port":82}]}}"#);
        seen += &lab.run(r#"patch svc s --type json -p [{"op":"replace","path":"/spec/ports/0/name","value":"d"}]"#);
        seen += &lab.run("get svc s -o jsonpath={.spec.ports[*].name}");
        seen += &lab.run("edit netpol p");
        seen += &lab.run(
            "get netpol p -o jsonpath={.spec.ingress[0].ports[0].protocol}/{.metadata.labels.x}",
        );
        seen += &lab.run(r#"patch netpol p --type merge -p {"spec":{"ingres":[]}}"#);
        expect![[r#"
            networkpolicy.networking.k8s.io/p labeled
            service/s patched
            b a
            service/s patched
            service/s patched
            d
            networkpolicy.networking.k8s.io/p edited
            UDP/y
            networkpolicy.networking.k8s.io/p patched (no change)
            Warning: unknown field "spec.ingres"
        "#]]
        .assert_eq(&seen);
        let refused = lab.feed("apply --server-side -f -", POLICY);
        assert!(refused.contains("use `kubectl apply` without --server-side"), "{refused}");
        let typo = lab.apply(&POLICY.replace("ingress", "ingres"));
        assert!(typo.contains(r#"strict decoding error: unknown field "spec.ingres""#), "{typo}");
    });
}

#[test]
fn watches_and_waits() {
    with_each_kubectl(&[], |lab| {
        lab.apply(POD);
        let ready = lab.start_command("wait --for=condition=Ready pod/web --timeout=20s");
        let mut watch = lab.start_command("get pods -w --output-watch-events");
        lab.run(&format!(
            "patch pod web --subresource status --type merge -p {}",
            RUNNING.replace([' ', '\n'], "")
        ));
        expect!["pod/web condition met\n"].assert_eq(&printed(&ready.wait_with_output().unwrap()));
        let deleted = lab.start_command("wait --for=delete pod/web --timeout=20s");
        lab.run("delete pod web --wait=false");
        let terminating = lab.run(
            "get pod web --no-headers -o custom-columns=A:.metadata.deletionGracePeriodSeconds",
        );
        expect!["30\n"].assert_eq(&terminating);
        lab.run("delete pod web --force");
        let gone = printed(&deleted.wait_with_output().unwrap());
        assert!(gone.starts_with("pod/web "), "{gone}");
        thread::sleep(Duration::from_millis(300));
        watch.kill().unwrap();
        let seen = printed(&watch.wait_with_output().unwrap());
        let events: Vec<&str> =
            seen.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(events, ["EVENT", "ADDED", "MODIFIED", "MODIFIED", "DELETED"], "{seen}");
    });
}

#[test]
fn raw_requests_page_filter_and_need_the_token() {
    with_each_kubectl(&[], |lab| {
        for name in ["a", "b", "c"] {
            lab.run(&format!("create configmap {name} --from-literal=k=18446744073709551615"));
        }
        lab.run("label configmap a b side=left");
        let page = |query: &str| -> (Vec<String>, Value) {
            let text = lab.raw(&format!("/api/v1/configmaps?limit=2{query}"));
            let list: Value = serde_json::from_str(&text).unwrap();
            let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
            (list["items"].as_array().unwrap().iter().map(name).collect(), list["metadata"].clone())
        };
        let (names, meta) = page("");
        assert_eq!(
            (names, &meta["remainingItemCount"]),
            (vec!["a".to_owned(), "b".to_owned()], &json!(1))
        );
        let (names, meta) = page(&format!("&continue={}", meta["continue"].as_str().unwrap()));
        assert_eq!((names, &meta["continue"]), (vec!["c".to_owned()], &Value::Null));
        let mut other = TcpStream::connect(&lab.address).unwrap();
        let request = b"GET /api/v1/pods HTTP/1.0\r\nAuthorization: Bearer other\r\n\r\n";
        other.write_all(request).unwrap();
        let mut refused = String::new();
        other.read_to_string(&mut refused).unwrap();
        assert!(refused.starts_with("HTTP/1.0 401"), "{refused}");
        assert!(refused.contains(r#""kind":"Status""#), "{refused}");
        assert_eq!(
            page("&labelSelector=side+in+(left,right),!x&fieldSelector=metadata.name!=a").0,
            ["b"]
        );
    });
}

#[test]
fn events_of_either_group_are_seen() {
    with_each_kubectl(&[], |lab| {
        lab.apply(
            "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e}, eventTime: \"2026-01-01T00:00:00.000000Z\", \
             type: Normal, reason: Bound, action: Bind, note: it is, reportingController: x, reportingInstance: z, \
             regarding: {kind: Pod, name: web, namespace: default}}",
        );
        let seen = lab.run(
            "get events --no-headers -o custom-columns=A:.involvedObject.name,B:.reason,C:.message",
        );
        expect!["web   Bound   it is\n"].assert_eq(&seen);
    });
}

#[test]
fn namespaces_go_with_all_that_is_in_them() {
    with_each_kubectl(&[], |lab| {
        let mut seen = lab.run("create namespace shop");
        seen += &lab.run("-n shop create configmap c --from-literal=a=b");
        seen += &lab.run("-n shop create secret generic s --from-literal=a=b");
        seen += &lab.run("-n shop get secret s -o jsonpath={.data.a}");
        seen += &lab.run("-n shop create service clusterip v --tcp=80:8080");
        seen += &lab.run("-n shop run idle --image=b");
        seen += &lab.run("auth can-i get pods");
        seen += &lab.feed("-n shop apply -f -", POD);
        seen += &lab.run("delete namespace shop --wait=false");
        seen += &lab.run("get namespace shop");
        seen += &lab.run("-n shop create configmap d");
        lab.run("-n shop delete pod web --force");
        seen += &lab.run("get namespace shop");
        expect![[r#"
            namespace/shop created
            configmap/c created
            secret/s created
            Yg==
            service/v created
            pod/idle created
            yes
            pod/web created
            namespace "shop" deleted
            NAME   STATUS        AGE
            shop   Terminating   AGE
            error: failed to create configmap: configmaps "d" is forbidden: unable to create new content in namespace shop because it is being terminated
            Error from server (NotFound): namespaces "shop" not found
        "#]]
        .assert_eq(&seen);
    });
}

#[test]
fn custom_resources_follow_their_definition() {
    with_each_kubectl(&[], |lab| {
        let widget = |spec: &str| {
            format!(
                "{{apiVersion: example.com/v1, kind: Widget, metadata: {{name: w}}, spec: {spec}}}"
            )
        };
        let mut seen = lab.apply(&widgets().to_string());
        seen += &lab.apply(&widget(
            "{cidr: 10.0.0.0/8, peers: [{ip: 1.2.3.4}], any: {z: 18446744073709551615}, port: 5}",
        ));
        seen += &lab.run("get widgets -o wide");
        seen += &lab.run("get wg --field-selector spec.color=red");
        seen += &lab.apply(&widget("{cidr: 10.0.0.0, size: 40, color: blue, port: true, tags: [a, b, c], peers: [{weight: x}]}"));
        seen += &lab.apply(&widget("{cidr: 127.0.0.0/8}"));
        seen += &lab.apply(&widget("{cidr: 10.0.0.0/9}"));
        seen += &lab.apply(&widget("{cidr: 10.0.0.0/9}"));
        seen += &lab.run(r#"patch widget w --subresource status --type merge -p {"status":{"used":3},"spec":{"size":21}}"#);
        seen +=
            &lab.run("get widget w -o jsonpath={.spec.size}/{.status.used}/{.metadata.generation}");
        seen += &lab.run("delete widget w");
        expect![[r#"
            customresourcedefinition.apiextensions.k8s.io/widgets.example.com created
            widget.example.com/w created
            NAME   CIDR         SIZE
            w      10.0.0.0/8   26
            No resources found
            The Widget "w" is invalid:
            * spec.cidr: Invalid value: "10.0.0.0": spec.cidr in body must be of type cidr: "10.0.0.0"
            * spec.color: Unsupported value: "blue": supported values: "red", "green"
            * spec.peers[0].ip: Required value
            * spec.peers[0].weight: Invalid value: "string": spec.peers[0].weight in body must be of type integer: "string"
            * spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"
            * spec.size: Invalid value: 40: spec.size in body should be less than or equal to 32
            * spec.tags: Too many: 3: must have at most 2 items
            The Widget "w" is invalid: spec.cidr: must not be loopback
            widget.example.com/w configured
            widget.example.com/w unchanged
            widget.example.com/w patched
            26/3/2
            widget.example.com "w" deleted
        "#]]
        .assert_eq(&seen);
        lab.apply(&widget("{cidr: 10.0.0.0/8, any: {whole: 1e6, half: 0.5}}"));
        expect![[r#"
            {"half":0.5,"whole":1000000}
        "#]]
        .assert_eq(&lab.run("get widget w -o jsonpath={.spec.any}"));
        let explained = lab.run("explain widget.spec.cidr");
        assert!(explained.contains("The prefix."), "{explained}");
        let explained = lab.run("explain networkpolicy.spec.policyTypes");
        assert!(explained.contains("policyTypes <[]string>"), "{explained}");
        lab.run("delete crd widgets.example.com");
        // In one of two ways: kubectl may still have the kind in its discovery cache.
        let gone = lab.run("get widgets");
        assert!(gone.starts_with("error: ") || gone.starts_with("Error "), "{gone}");
    });
}

/// The texts are those of kube-apiserver 1.36.2, except for server-side apply, which the lab does not have.
#[test]
fn people_read_what_a_real_server_says() {
    with_each_kubectl(&[], |lab| {
        let mut seen = lab.apply(&POLICY.replace("networking.k8s.io/v1", "networking.k8s.io/v9"));
        seen += &lab.apply("{apiVersion: v1, kind: Pods, metadata: {name: x}}");
        seen += &lab.feed("apply --server-side -f -", POLICY);
        lab.feed("create -f -", POLICY);
        seen += &lab.feed("replace -f -", &POLICY.replace("ingress", "ingres"));
        seen += &lab.run("label netpol p bad/key/=1");
        seen += &lab.run("patch netpol p --type merge -p garbage");
        seen += &lab.run(r#"patch netpol p -p {"spec":{"ingres":[{"a":1}]}} --dry-run=server"#);
        seen += &lab.run("get pods -l app~x");
        expect![[r#"
            error: resource mapping not found for name: "p" namespace: "" from "STDIN": no matches for kind "NetworkPolicy" in version "networking.k8s.io/v9"
            ensure CRDs are installed first
            error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind "Pods" in version "v1"
            ensure CRDs are installed first
            error: Server-side apply not available on the server: (the lab's API server has no server-side apply (apply-patch): use `kubectl apply` without --server-side)
            Error from server (BadRequest): error when replacing "STDIN": NetworkPolicy in version "v1" cannot be handled as a NetworkPolicy: strict decoding error: unknown field "spec.ingres"
            The NetworkPolicy "p" is invalid: metadata.labels: Invalid value: "bad/key/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            Error from server (BadRequest): error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}
            networkpolicy.networking.k8s.io/p patched (no change)
            Warning: unknown field "spec.ingres"
            Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "app~x", field selector "": unable to parse requirement: <nil>: Invalid value: "app~x": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        "#]].assert_eq(&seen);
    });
}

#[test]
fn what_is_fixed_stays_fixed() {
    with_each_kubectl(&[], |lab| {
        let service =
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}";
        lab.apply(service);
        lab.apply(POD);
        lab.run("create configmap c --from-literal=a=b");
        let held = r#"{"metadata":{"finalizers":["x.example/hold"]}}"#;
        lab.run(&format!("patch configmap c --type merge -p {held}"));
        lab.run("delete configmap c --wait=false");
        let mut seen = lab.run(r#"patch svc s -p {"spec":{"clusterIP":"10.96.9.9"}}"#);
        seen += &lab.run(r#"patch svc s --type merge -p {"spec":{"ports":[{"port":99999}]}}"#);
        seen += &lab.run(r#"patch pod web --type merge -p {"spec":{"nodeName":"n2"}}"#);
        seen +=
            &lab.run(r#"patch pod web -p {"spec":{"containers":[{"name":"c","image":"c:2"}]}}"#);
        seen += &lab.run(
            r#"patch configmap c --type merge -p {"metadata":{"finalizers":["y.example/new"]}}"#,
        );
        seen +=
            &lab.run("get configmap c -o jsonpath={.metadata.generation}{.metadata.finalizers}");
        seen += &lab.apply(&POD.replace("name: web,", "name: bad,").replace("name: c", "name: A_"));
        seen += &lab.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a}]}}",
        );
        lab.run("run idle --image=b");
        seen += &lab.run("get pod idle -o jsonpath={.spec.containers[0].imagePullPolicy},{.spec.tolerations[*].key}");
        expect![[r#"
            The Service "s" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.9.9"]: may not change once set
            The Service "s" is invalid:
            * spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive
            * spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive
            The Pod "web" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
            pod/web patched
            The ConfigMap "c" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"y.example/new"}
            ["x.example/hold"]
            The Pod "bad" is invalid: spec.containers[0].name: Invalid value: "A_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            The Pod "x" is invalid: spec.containers[0].image: Required value
            Always,node.kubernetes.io/not-ready node.kubernetes.io/unreachable
        "#]].assert_eq(&seen);
    });
}
