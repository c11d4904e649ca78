#!/usr/bin/env python3
"""Makes core.json.gz: what a real API server says about the built-in kinds that the lab serves.

    prune.py KUBECONFIG > core.json.gz        (needs kubectl; run against an empty kube-apiserver, here 1.36.2)

The file is one JSON object:
  resources  discovery of each served kind, with its schema's name, its list's table columns and its subresources
  schemas    the OpenAPI v3 schemas that those kinds reach, descriptions included (for `kubectl explain`)
"""
import gzip, json, ssl, subprocess, sys, urllib.request

SERVED = {
    "": "namespaces pods nodes services serviceaccounts configmaps secrets events endpoints replicationcontrollers",
    "apps": "deployments daemonsets replicasets statefulsets",
    "networking.k8s.io": "networkpolicies",
    "discovery.k8s.io": "endpointslices",
    "coordination.k8s.io": "leases",
    "apiextensions.k8s.io": "customresourcedefinitions",
    "authorization.k8s.io": "selfsubjectaccessreviews",
    "events.k8s.io": "events",
}
SUBRESOURCES = {"status", "log", "exec"}
# Kinds of the API machinery that request bodies and answers have.
MACHINERY = ["Status", "DeleteOptions", "Patch", "APIResourceList", "WatchEvent", "ListMeta"]
META = "io.k8s.apimachinery.pkg.apis.meta.v1."

config = json.loads(subprocess.run(["kubectl", "--kubeconfig", sys.argv[1], "config", "view", "--raw", "-o", "json"],
                                   check=True, capture_output=True).stdout)
server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]

def get(path, accept="application/json"):
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}", "Accept": accept})
    return json.load(urllib.request.urlopen(request, context=ssl._create_unverified_context()))

def columns(path):
    return get(path, "application/json;as=Table;v=v1;g=meta.k8s.io")["columnDefinitions"]

def refs(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner.rsplit("/", 1)[1]
            else:
                yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)

schemas, resources, wanted = {}, [], [META + name for name in MACHINERY]
for group, names in SERVED.items():
    gv = f"apis/{group}/v1" if group else "api/v1"
    document = get(f"/openapi/v3/{gv}")
    schemas |= document["components"]["schemas"]
    found = {r["name"]: r for r in get(f"/{gv}")["resources"]}
    for name in names.split():
        r = found[name]
        schema = next(n for n, s in document["components"]["schemas"].items()
                      if {"group": group, "version": "v1", "kind": r["kind"]} in s.get("x-kubernetes-group-version-kind", []))
        wanted.append(schema)
        resources.append({
            "group": group, "version": "v1", "plural": name, "singular": r["singularName"], "kind": r["kind"],
            "namespaced": r["namespaced"], "verbs": r["verbs"], "shortNames": r.get("shortNames", []),
            "categories": r.get("categories", []), "schema": schema, "columns": columns(f"/{gv}/{name}") if "list" in r["verbs"] else [],
            "subresources": [n.split("/")[1] for n in found if n.startswith(name + "/") and n.split("/")[1] in SUBRESOURCES],
        })
keep = {}
while wanted:
    name = wanted.pop()
    if name not in keep:
        keep[name] = schemas[name]
        wanted += refs(schemas[name])
for name, schema in keep.items():
    gvks = schema.get("x-kubernetes-group-version-kind")
    if gvks and len(gvks) > 1:  # DeleteOptions and WatchEvent belong to every group; the served ones are enough
        schema["x-kubernetes-group-version-kind"] = [g for g in gvks if g["group"] in SERVED and g["version"] == "v1"]
result = {"resources": resources, "schemas": dict(sorted(keep.items()))}
sys.stdout.buffer.write(gzip.compress(json.dumps(result, separators=(",", ":")).encode(), 9, mtime=0))
