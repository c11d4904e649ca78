//! From the YAML tree to the model: keys, inheritance, roles, links.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    Bind, Endpoint, Fault, Link, Node, Role, RouterKind, Topology,
    schema::{self, nearest},
    yaml::{Entry, Value, Yaml},
};

/// Kinds that a namespace can be.
const KINDS: &[&str] = &["linux", "bird", "frr", "voile", "bridge"];
/// Roles that the label `voile.dev/role` can give; everything that routes is a router here.
const ROUTER_ROLES: &[&str] = &["router", "leaf", "spine", "tor"];
/// The label that decides when the image's name doesn't.
const ROLE_LABEL: &str = "voile.dev/role";

pub(super) fn read(root: &Yaml, folder: &Path, file: &Path) -> Result<Topology, Fault> {
    let entries = schema::check(root, schema::ROOT, "topology file")?;
    let name = require(entries, "name", root, "topology file")?;
    let topology = require(entries, "topology", root, "topology file")?;
    let parts = schema::check(topology, schema::TOPOLOGY, "topology")?;
    let settings = Settings::read(parts)?;
    let nodes = require(parts, "nodes", topology, "topology")?
        .mapping("nodes")?
        .iter()
        .map(|entry| settings.node(entry, folder))
        .collect::<Result<Vec<_>, _>>()?;
    if nodes.is_empty() {
        return Err(Fault::new(topology.line, "topology has no nodes", "list them under `nodes:`"));
    }
    let links = match find(parts, "links") {
        Some(links) => read_links(links.sequence("links")?, &nodes)?,
        None => Vec::new(),
    };
    let name_text = check_name(name.text("name")?, name.line, "name")?;
    Ok(Topology { name: name_text, file: file.to_owned(), nodes, links })
}

fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Yaml> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn require<'a>(
    entries: &'a [Entry],
    key: &str,
    parent: &Yaml,
    place: &str,
) -> Result<&'a Yaml, Fault> {
    find(entries, key).ok_or_else(|| {
        Fault::new(parent.line, format!("{place}: {key:?} is missing"), format!("add `{key}:`"))
    })
}

/// Checks a name against what namespaces, host names and Kubernetes objects allow together.
pub(crate) fn check_name(name: &str, line: usize, what: &str) -> Result<String, Fault> {
    let good = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(name.to_owned())
    } else {
        Err(Fault::new(
            line,
            format!("{what} {name:?} is not a usable name"),
            "use 1 to 40 lower-case letters, digits and dashes, with a letter or digit at both ends",
        ))
    }
}

/// What defaults, kinds and groups say, before nodes inherit it.
struct Settings<'a> {
    defaults: &'a [Entry],
    kinds: BTreeMap<&'a str, &'a [Entry]>,
    groups: BTreeMap<&'a str, &'a [Entry]>,
}

impl<'a> Settings<'a> {
    fn read(parts: &'a [Entry]) -> Result<Self, Fault> {
        let defaults = match find(parts, "defaults") {
            Some(yaml) => schema::check(yaml, schema::NODE, "defaults")?,
            None => &[],
        };
        let kinds = named(parts, "kinds", "kind")?;
        if let Some(yaml) = find(parts, "kinds") {
            for entry in yaml.mapping("kinds")? {
                check_kind(&entry.key, entry.line, "kinds")?;
            }
        }
        Ok(Self { defaults, kinds, groups: named(parts, "groups", "group")? })
    }

    /// Layers in merge order: defaults < kinds < groups < node.
    fn layers(
        &self,
        own: &'a [Entry],
        name: &str,
        line: usize,
    ) -> Result<(String, [&'a [Entry]; 4]), Fault> {
        let text = |entries: &'a [Entry], key: &str| {
            find(entries, key).map(|yaml| yaml.text(key)).transpose()
        };
        let group = text(own, "group")?.or(text(self.defaults, "group")?);
        let grouped: &[Entry] =
            group.and_then(|group| self.groups.get(group)).copied().unwrap_or(&[]);
        let kind = match text(own, "kind")? {
            Some(kind) => kind,
            None => match text(grouped, "kind")? {
                Some(kind) => kind,
                None => text(self.defaults, "kind")?.ok_or_else(|| {
                    let message = format!("node {name:?} has no kind");
                    Fault::new(line, message, "add `kind: linux` to it or to `defaults:`")
                })?,
            },
        };
        let kind_line = find(own, "kind").map_or(line, |yaml| yaml.line);
        check_kind(kind, kind_line, &format!("node {name:?}"))?;
        let of_kind = self.kinds.get(kind).copied().unwrap_or(&[]);
        Ok((kind.to_owned(), [self.defaults, of_kind, grouped, own]))
    }

    fn node(&self, entry: &'a Entry, folder: &Path) -> Result<Node, Fault> {
        let place = format!("node {:?}", entry.key);
        let name = check_name(&entry.key, entry.line, "node name")?;
        let own = schema::check(&entry.value, schema::NODE, &place)?;
        let (kind, layers) = self.layers(own, &name, entry.line)?;
        let last = |key: &str| layers.iter().rev().find_map(|layer| find(layer, key));
        let text = |key: &str| last(key).and_then(|yaml| yaml.text(key).ok()).map(str::to_owned);
        let labels = merged_map(&layers, "labels");
        let image = text("image");
        let role = role(&kind, image.as_deref(), &labels).map_err(|(message, help)| {
            let line = last("labels").map_or(entry.line, |yaml| yaml.line);
            Fault::new(line, format!("{place}: {message}"), help)
        })?;
        let mut command = words(&text("entrypoint").unwrap_or_default());
        command.extend(words(&text("cmd").unwrap_or_default()));
        Ok(Node {
            role,
            image,
            binds: binds(&layers, folder, &place)?,
            exec: merged_list(&layers, "exec").map(|(text, _)| text.to_owned()).collect(),
            command,
            env: merged_map(&layers, "env"),
            sysctls: merged_map(&layers, "sysctls"),
            labels,
            name,
            line: entry.line,
        })
    }
}

fn named<'a>(
    parts: &'a [Entry],
    key: &str,
    what: &str,
) -> Result<BTreeMap<&'a str, &'a [Entry]>, Fault> {
    let Some(yaml) = find(parts, key) else { return Ok(BTreeMap::new()) };
    yaml.mapping(key)?
        .iter()
        .map(|entry| {
            let place = format!("{what} {:?}", entry.key);
            Ok((entry.key.as_str(), schema::check(&entry.value, schema::NODE, &place)?))
        })
        .collect()
}

fn check_kind(kind: &str, line: usize, place: &str) -> Result<(), Fault> {
    if KINDS.contains(&kind) {
        return Ok(());
    }
    let help = nearest(kind, KINDS).map_or_else(
        || format!("a lab of namespaces has the kinds {}", KINDS.join(", ")),
        |known| format!("did you mean {known:?}?"),
    );
    Err(Fault::new(line, format!("{place}: unknown kind {kind:?}"), help))
}

fn merged_map(layers: &[&[Entry]], key: &str) -> BTreeMap<String, String> {
    let maps = layers.iter().filter_map(|layer| match &find(layer, key)?.value {
        Value::Mapping(entries) => Some(entries),
        _ => None,
    });
    maps.flatten()
        .filter_map(|entry| match &entry.value.value {
            Value::Scalar(text, _) => Some((entry.key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

fn merged_list<'a>(
    layers: &'a [&'a [Entry]],
    key: &'a str,
) -> impl Iterator<Item = (&'a str, usize)> {
    layers
        .iter()
        .filter_map(move |layer| match &find(layer, key)?.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        })
        .flatten()
        .filter_map(|item| match &item.value {
            Value::Scalar(text, _) => Some((text.as_str(), item.line)),
            _ => None,
        })
}

/// Later layers replace binds to the same destination.
fn binds(layers: &[&[Entry]], folder: &Path, place: &str) -> Result<Vec<Bind>, Fault> {
    let mut binds: Vec<Bind> = Vec::new();
    for (text, line) in merged_list(layers, "binds") {
        let mut parts = text.split(':');
        let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
            let message = format!("{place}: bind {text:?} has no destination");
            return Err(Fault::new(
                line,
                message,
                "write SOURCE:DESTINATION or SOURCE:DESTINATION:ro",
            ));
        };
        let source = folder.join(source);
        if !source.exists() {
            let message = format!("{place}: bind source {} does not exist", source.display());
            return Err(Fault::new(line, message, "paths are relative to the topology file"));
        }
        binds.retain(|bind| bind.destination != Path::new(destination));
        binds.push(Bind { source, destination: destination.into() });
    }
    Ok(binds)
}

/// Splits a command line at white space, respecting quotes as far as topologies use them.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut started) = (Vec::new(), String::new(), None, false);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => word.push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                started = true;
            }
            (None, _) if character.is_whitespace() => {
                if started || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (None, _) => word.push(character),
        }
    }
    if started || !word.is_empty() {
        words.push(word);
    }
    words
}

type Because = (String, String);

/// Decides what a node is: by kind, then by label, then by the image's name.
fn role(
    kind: &str,
    image: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Result<Role, Because> {
    match kind {
        "bridge" => return Ok(Role::Bridge),
        "bird" => return Ok(Role::Router(RouterKind::Bird)),
        "frr" => return Ok(Role::Router(RouterKind::Frr)),
        "voile" if labels.get(ROLE_LABEL).is_none_or(|role| role == "node") => {
            return Ok(Role::Kubernetes);
        }
        _ => (),
    }
    let image = image.unwrap_or_default();
    let base =
        image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
    let router = if image.contains("frr") {
        RouterKind::Frr
    } else if base.contains("bird") {
        RouterKind::Bird
    } else {
        RouterKind::Voile
    };
    match labels.get(ROLE_LABEL).map(String::as_str) {
        Some("node") => Ok(Role::Kubernetes),
        Some("host") => Ok(Role::Host),
        Some(role) if ROUTER_ROLES.contains(&role) => Ok(Role::Router(router)),
        Some(role) => Err((
            format!("label {ROLE_LABEL} has the unknown value {role:?}"),
            format!("use node, host, {}", ROUTER_ROLES.join(", ")),
        )),
        None if base == "voile-node" => Ok(Role::Kubernetes),
        None if base == "voile-bgpd" || router != RouterKind::Voile => Ok(Role::Router(router)),
        None => Ok(Role::Host),
    }
}

fn read_links(items: &[Yaml], nodes: &[Node]) -> Result<Vec<Link>, Fault> {
    let mut used = BTreeMap::new();
    let mut links = Vec::new();
    for item in items {
        let link = read_link(item)?;
        for endpoint in [&link.a, &link.b] {
            check_endpoint(endpoint, link.line, nodes)?;
            let place = (endpoint.node.clone(), endpoint.interface.clone());
            if let Some(first) = used.insert(place, link.line) {
                let message = format!(
                    "interface {}:{} has a link already, in line {first}",
                    endpoint.node, endpoint.interface
                );
                return Err(Fault::new(
                    link.line,
                    message,
                    "give each link an interface of its own",
                ));
            }
        }
        links.push(link);
    }
    Ok(links)
}

fn check_endpoint(endpoint: &Endpoint, line: usize, nodes: &[Node]) -> Result<(), Fault> {
    let Endpoint { node, interface, .. } = endpoint;
    if !nodes.iter().any(|known| known.name == *node) {
        let names: BTreeSet<_> = nodes.iter().map(|known| known.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        let help = nearest(node, &names).map_or_else(
            || format!("nodes are {}", names.join(", ")),
            |name| format!("did you mean {name:?}?"),
        );
        return Err(Fault::new(line, format!("link to {node:?}, which is no node"), help));
    }
    let good = (1..=15).contains(&interface.len())
        && !interface.contains(['/', ':'])
        && !interface.contains(char::is_whitespace);
    if !good {
        let message = format!("{node}:{interface} is not an interface name");
        return Err(Fault::new(
            line,
            message,
            "Linux takes 1 to 15 characters without / : and spaces",
        ));
    }
    if interface == "eth0" || interface == "lo" {
        let message = format!("{node}:{interface} is taken");
        return Err(Fault::new(
            line,
            message,
            "eth0 is containerlab's management network; begin with eth1",
        ));
    }
    Ok(())
}

fn read_link(item: &Yaml) -> Result<Link, Fault> {
    let entries = schema::check(item, schema::LINK, "link")?;
    let line = entries.first().map_or(item.line, |entry| entry.line);
    if let Some(kind) = find(entries, "type") {
        let text = kind.text("link type")?;
        if text != "veth" {
            let message = format!("link type {text:?} needs a host network");
            return Err(Fault::new(
                kind.line,
                message,
                "a lab of namespaces has links of type veth",
            ));
        }
    }
    let endpoints = require(entries, "endpoints", item, "link")?;
    let [a, b] = endpoints.sequence("endpoints")? else {
        let message = "a link needs two endpoints";
        return Err(Fault::new(
            endpoints.line,
            message,
            "write endpoints: [\"n1:eth1\", \"n2:eth1\"]",
        ));
    };
    let mtu = find(entries, "mtu").and_then(|yaml| yaml.text("mtu").ok()?.parse().ok());
    Ok(Link { a: read_endpoint(a)?, b: read_endpoint(b)?, mtu, line })
}

fn read_endpoint(yaml: &Yaml) -> Result<Endpoint, Fault> {
    if let Value::Scalar(text, _) = &yaml.value {
        let (node, interface) = text.split_once(':').ok_or_else(|| {
            Fault::new(
                yaml.line,
                format!("endpoint {text:?} has no interface"),
                "write NODE:INTERFACE",
            )
        })?;
        let (node, interface) = (node.to_owned(), interface.to_owned());
        return Ok(Endpoint { node, interface, mac: None, ipv4: None, ipv6: None });
    }
    let entries = schema::check(yaml, schema::ENDPOINT, "endpoint")?;
    let text = |key: &str| -> Result<String, Fault> {
        Ok(require(entries, key, yaml, "endpoint")?.text(key)?.to_owned())
    };
    Ok(Endpoint {
        node: text("node")?,
        interface: text("interface")?,
        mac: parsed(entries, "mac", "a MAC address like 02:00:00:00:00:01")?,
        ipv4: parsed(entries, "ipv4", "an address like 192.0.2.1/24")?,
        ipv6: parsed(entries, "ipv6", "an address like 2001:db8::1/64")?,
    })
}

fn parsed<T: std::str::FromStr>(
    entries: &[Entry],
    key: &str,
    wanted: &str,
) -> Result<Option<T>, Fault> {
    let Some(yaml) = find(entries, key) else { return Ok(None) };
    let text = yaml.text(key)?;
    text.parse().map(Some).map_err(|_| {
        Fault::new(
            yaml.line,
            format!("endpoint: {key} {text:?} can't be read"),
            format!("write {wanted}"),
        )
    })
}
