//! How each kind of router is started inside its namespace, with private folders instead of the machine's.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::unistd::{User, chown};

use crate::{
    paths::Layout,
    processes::{Restart, Spec},
    topology::{Node, RouterKind},
};

/// Programs of one router, in start order.
pub fn specs(node: &Node, kind: RouterKind, layout: &Layout) -> Result<Vec<Spec>> {
    let dir = layout.node_dir(&node.name);
    fs::create_dir_all(&dir)?;
    let spec = |name: String, command: Vec<String>| Spec {
        log: layout.log(&name),
        name,
        command,
        env: node.env.clone(),
        netns: Some(layout.netns(&node.name)),
        hostname: None,
        restart: Restart::Always,
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(match kind {
        RouterKind::Voile => {
            let config = config(node, "/etc/voile/bgpd.toml")?;
            vec![spec(node.name.clone(), vec![text(&ours("voile-bgpd")?), text(&config)])]
        }
        RouterKind::Bird => {
            let config = config(node, "/etc/bird/bird.conf")?;
            let socket = dir.join("bird.ctl");
            let command =
                [&text(&find("bird", "bird2")?), "-f", "-c", &text(&config), "-s", &text(&socket)];
            vec![spec(node.name.clone(), command.map(str::to_owned).into())]
        }
        RouterKind::Frr => {
            let config = config(node, "/etc/frr/frr.conf")?;
            frr(&config, layout, &dir)?
                .into_iter()
                .map(|(daemon, command)| spec(format!("{}-{daemon}", node.name), command))
                .collect()
        }
    })
}

fn config(node: &Node, place: &str) -> Result<PathBuf> {
    let path = node.bound(place).ok_or_else(|| {
        anyhow!(
            "router {:?} has no configuration; bind a file to {place} (`binds: [FILE:{place}]`)",
            node.name
        )
    })?;
    path.canonicalize().with_context(|| format!("router {:?}: {}", node.name, path.display()))
}

/// zebra and bgpd with every file they write in a folder of their own. They insist on becoming FRR's user, because only
/// that one is in the group that they were built for.
fn frr(config: &Path, layout: &Layout, dir: &Path) -> Result<Vec<(&'static str, Vec<String>)>> {
    let own = dir.join("frr.conf");
    fs::copy(config, &own)?;
    let Some(user) = User::from_name("frr")? else {
        bail!(
            "the topology asks for FRR, which is not on this machine; install it (Debian: apt install frr)"
        )
    };
    let given =
        [dir, &own].iter().try_for_each(|path| chown(*path, Some(user.uid), Some(user.gid)));
    given.context(
        "FRR needs a lab of root: it changes to its own user, which a user namespace does not have",
    )?;
    // That user may pass, but not look.
    let base = layout.dir.parent().unwrap_or(&layout.dir);
    for folder in [base, &layout.dir, dir.parent().unwrap_or(dir)] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
    }
    let daemon = |name: &'static str| -> Result<_> {
        let program = find(&format!("/usr/lib/frr/{name}"), "frr")?;
        let mut command: Vec<String> = vec![program.to_string_lossy().into_owned()];
        let path = |file: String| dir.join(file).to_string_lossy().into_owned();
        command.extend([
            "-f".into(),
            own.to_string_lossy().into_owned(),
            "-i".into(),
            path(format!("{name}.pid")),
            "-z".into(),
            path("zserv.api".into()),
            "--vty_socket".into(),
            dir.to_string_lossy().into_owned(),
            "-P".into(),
            "0".into(),
            "--log".into(),
            "stdout".into(),
        ]);
        Ok((name, command))
    };
    Ok(vec![daemon("zebra")?, daemon("bgpd")?])
}

/// Finds one of our own programs: beside this one, or on PATH.
pub fn ours(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| {
        Some(PathBuf::from(path.to_str()?.trim_end_matches(" (deleted)")).with_file_name(name))
    });
    beside.filter(|path| path.is_file()).or_else(|| on_path(name)).ok_or_else(|| {
        anyhow!("{name} is not beside voile-lab and not on PATH; `cargo xtask lab` builds it")
    })
}

fn find(name: &str, package: &str) -> Result<PathBuf> {
    let found = if name.starts_with('/') {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else {
        on_path(name)
    };
    let Some(found) = found else {
        bail!(
            "the topology asks for {name}, which is not on this machine; install it (Debian: apt install {package})"
        )
    };
    Ok(found)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// Environment of a Kubernetes node's daemon.
#[must_use]
pub fn node_spec(node: &Node, layout: &Layout, program: &Path) -> Spec {
    let dir = layout.node_dir(&node.name);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let name = format!("voile-node-{}", node.name);
    let command = vec![
        program.to_string_lossy().into_owned(),
        "--kubeconfig".into(),
        text(layout.inner_kubeconfig()),
        "--node-name".into(),
        node.name.clone(),
        "--cni-socket".into(),
        text(layout.cni_socket(&node.name)),
        "--run-dir".into(),
        text(dir.join("run")),
        "--metrics-address".into(),
        "127.0.0.1:9091".into(),
    ];
    let mut env: BTreeMap<_, _> = node.env.clone();
    env.entry("VOILE_LOG".into()).or_insert_with(|| "info".into());
    Spec {
        log: layout.log(&name),
        name,
        command,
        env,
        netns: Some(layout.netns(&node.name)),
        hostname: None,
        restart: Restart::Always,
    }
}
