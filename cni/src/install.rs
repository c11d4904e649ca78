//! Puts the plugin and its configuration where the runtime looks. Called by the daemon once it can serve ADD.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::json;

/// Name of the plugin's program.
pub const BINARY: &str = "voile-cni";
/// Name of the configuration: sorts before most others, and the runtime takes the first.
pub const CONFLIST: &str = "10-voile.conflist";
/// Name of the network; Calico's, so that anything that looks for it finds it.
pub const NETWORK: &str = "k8s-pod-network";

/// What the configuration says.
#[derive(Debug, Clone)]
pub struct Conflist {
    /// Where the daemon listens, as seen from the host.
    pub socket: PathBuf,
    /// MTU of pods; the daemon's detection when absent.
    pub mtu: Option<u32>,
    /// Whether to chain the standard `portmap` plugin for hostPorts.
    pub portmap: bool,
}

impl Conflist {
    /// Renders the file.
    pub fn render(&self) -> String {
        let mut plugin =
            json!({"type": BINARY, "socket": self.socket, "capabilities": {"ips": true}});
        if let (Some(mtu), Some(fields)) = (self.mtu, plugin.as_object_mut()) {
            fields.insert("mtu".into(), mtu.into());
        }
        let mut plugins = vec![plugin];
        if self.portmap {
            plugins.push(
                json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}),
            );
        }
        let list = json!({"cniVersion": "1.0.0", "name": NETWORK, "plugins": plugins});
        format!("{list:#}\n")
    }
}

/// Copies the program and says whether it changed. Running copies keep their file: the new one takes its name.
pub fn install_binary(source: &Path, folder: &Path) -> io::Result<bool> {
    install(&fs::read(source)?, &folder.join(BINARY), 0o755)
}

/// Writes the configuration and says whether it changed.
pub fn install_conflist(conflist: &Conflist, folder: &Path) -> io::Result<bool> {
    install(conflist.render().as_bytes(), &folder.join(CONFLIST), 0o644)
}

/// Takes the configuration away, so that the runtime stops calling us; the program stays for DELs.
pub fn remove_conflist(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(CONFLIST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes beside the target and renames. Exclusive creation follows no planted symbolic link, and the mode never has
/// set-user-id (CVE-2024-33522).
fn install(contents: &[u8], target: &Path, mode: u32) -> io::Result<bool> {
    if fs::read(target).is_ok_and(|found| found == contents) {
        fs::set_permissions(target, fs::Permissions::from_mode(mode))?;
        return Ok(false);
    }
    let folder = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(
            |mut file| {
                file.write_all(contents)?;
                // The umask may have taken bits away.
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.sync_all()
            },
        );
    let installed = written.and_then(|()| fs::rename(&temporary, target));
    if installed.is_err() {
        // The error is told; a leftover temporary would only add noise.
        drop(fs::remove_file(&temporary));
    }
    installed?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests;
