//! Durable records of the local endpoints, one file each, so that a restarted daemon knows its pods without the API.
//!
//! Files lie in `<run-dir>/endpoints/`, written to a temporary name, synced and renamed: a reader sees the old record or the
//! new one, never half of one. A record that cannot be read is reported and set aside, never deleted.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One pod interface on this node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Sandbox id, as the container runtime calls it.
    pub(crate) container_id: String,
    /// Interface name inside the pod.
    pub(crate) ifname: String,
    /// Network namespace of the pod, as the runtime named it.
    pub(crate) netns: String,
    /// Namespace of the pod.
    pub(crate) namespace: String,
    /// Name of the pod.
    pub(crate) pod: String,
    /// UID of the pod, when the runtime told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod_uid: Option<String>,
    /// Name of the host side of the veth.
    pub(crate) host_interface: String,
    /// Addresses of the pod, /32 and /128.
    pub(crate) addresses: Vec<IpNet>,
    /// IPAM handle that holds the addresses.
    pub(crate) handle: String,
    /// The machine that the pod runs or waits for; it keeps the addresses when the pod goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<ipam::Machine>,
    /// The machine still runs elsewhere: no packet to it may come here yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) awaits_machine: bool,
    /// MTU given to the pod's interface.
    pub(crate) mtu: u32,
    /// Whether the shim has reported the veth as wired.
    #[serde(default)]
    pub(crate) wired: bool,
}

impl Record {
    /// Returns the name that the record is stored under.
    pub(crate) fn id(&self) -> String {
        id(&self.container_id, &self.ifname)
    }

    /// Returns the addresses that packets may come here for, without their prefix length.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let here = self.addresses.iter().filter(|_| !self.awaits_machine);
        here.map(IpNet::addr).collect()
    }
}

fn id(container_id: &str, ifname: &str) -> String {
    format!("{container_id}-{ifname}")
}

/// The records on disk and in memory.
#[derive(Debug)]
pub(crate) struct Endpoints {
    dir: PathBuf,
    records: BTreeMap<String, Record>,
}

impl Endpoints {
    /// Reads all records below `run_dir`; unreadable ones are set aside and returned as complaints.
    pub(crate) fn load(run_dir: &Path) -> io::Result<(Self, Vec<String>)> {
        let dir = run_dir.join("endpoints");
        fs::create_dir_all(&dir)?;
        let (mut records, mut complaints) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                Some("tmp") => {
                    fs::remove_file(&path)?;
                    continue;
                }
                _ => continue,
            }
            let read = fs::read(&path).map_err(|error| error.to_string()).and_then(|bytes| {
                serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string())
            });
            match read {
                Ok(record) => {
                    records.insert(record.id(), record);
                }
                Err(error) => {
                    complaints.push(format!("{}: {error}; set aside", path.display()));
                    fs::rename(&path, path.with_extension("bad"))?;
                }
            }
        }
        Ok((Self { dir, records }, complaints))
    }

    /// Stores a record durably.
    pub(crate) fn put(&mut self, record: Record) -> io::Result<()> {
        let id = record.id();
        let path = self.dir.join(format!("{id}.json"));
        let temporary = self.dir.join(format!("{id}.tmp"));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        self.records.insert(id, record);
        Ok(())
    }

    /// Forgets a record.
    pub(crate) fn remove(
        &mut self,
        container_id: &str,
        ifname: &str,
    ) -> io::Result<Option<Record>> {
        let id = id(container_id, ifname);
        match fs::remove_file(self.dir.join(format!("{id}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(self.records.remove(&id)),
        }
    }

    /// Returns one record.
    pub(crate) fn get(&self, container_id: &str, ifname: &str) -> Option<&Record> {
        self.records.get(&id(container_id, ifname))
    }

    /// Returns all records, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container_id: &str) -> Record {
        Record {
            container_id: container_id.into(),
            ifname: "eth0".into(),
            netns: "/run/netns/x".into(),
            namespace: "default".into(),
            pod: "a".into(),
            pod_uid: None,
            host_interface: "cali0123456789a".into(),
            addresses: vec!["10.244.0.1/32".parse().unwrap()],
            handle: "k8s-pod-network.c1".into(),
            machine: None,
            awaits_machine: false,
            mtu: 1500,
            wired: true,
        }
    }

    #[test]
    fn records_survive_a_restart_and_broken_ones_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (mut endpoints, complaints) = Endpoints::load(dir.path()).unwrap();
        assert!(complaints.is_empty());
        endpoints.put(record("c1")).unwrap();
        endpoints.put(record("c2")).unwrap();
        endpoints.remove("c2", "eth0").unwrap();
        fs::write(dir.path().join("endpoints/c3-eth0.json"), "{ half").unwrap();
        fs::write(dir.path().join("endpoints/c4-eth0.tmp"), "{}").unwrap();

        let (again, complaints) = Endpoints::load(dir.path()).unwrap();
        assert_eq!(again.iter().map(Record::id).collect::<Vec<_>>(), ["c1-eth0"]);
        assert_eq!(again.get("c1", "eth0"), Some(&record("c1")));
        assert_eq!(complaints.len(), 1);
        assert!(dir.path().join("endpoints/c3-eth0.bad").exists());
        assert!(!dir.path().join("endpoints/c4-eth0.tmp").exists());
    }
}
