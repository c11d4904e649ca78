//! DELs that the daemon must still hear of. The shim writes them when the daemon is away, the daemon reads them when
//! it starts: an address is never leaked because of an upgrade.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::rpc::{self, Del};

/// Folder beside the socket.
const FOLDER: &str = "cni-del";

/// Returns the journal's folder for a daemon's socket.
pub fn folder(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join(FOLDER)
}

/// Writes a DEL down, durably: the file appears whole or not at all.
pub fn record(socket: &Path, del: &Del) -> io::Result<PathBuf> {
    let folder = folder(socket);
    fs::create_dir_all(&folder)?;
    // Both parts were validated: neither can leave the folder.
    let name = format!("{}-{}.json", del.attachment.container_id, del.attachment.ifname);
    let path = folder.join(&name);
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&serde_json::to_vec(del)?)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, &path));
    if renamed.is_err() {
        // The error is told; a leftover temporary would only add noise.
        drop(fs::remove_file(&temporary));
    }
    renamed.map(|()| path)
}

/// Reads all DELs not yet consumed, with their files, in the order of names; unreadable files are returned as errors.
pub fn pending(socket: &Path) -> io::Result<Vec<(PathBuf, Result<Del, String>)>> {
    let entries = match fs::read_dir(folder(socket)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let del = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|octets| rpc::from_json(&octets).map_err(|error| error.to_string()));
            found.push((path, del));
        }
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found)
}

/// Forgets a consumed DEL; one that is gone already is fine.
pub fn consume(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
