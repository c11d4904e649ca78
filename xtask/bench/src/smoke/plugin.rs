//! A CNI plugin, executed as a container runtime executes it.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use kernel::NetNs;
use serde_json::Value;

/// A plugin and its network configuration.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) program: PathBuf,
    pub(super) config: Value,
    /// Where it finds others, for `CNI_PATH`.
    pub(super) folder: PathBuf,
}

/// Name of a pod in the API.
pub(super) fn pod_name(number: usize) -> String {
    format!("pod-{number}")
}

impl Plugin {
    /// Runs one command for a pod, inside the node's namespace; returns the milliseconds from start to end.
    pub(super) fn execute(
        &self,
        command: &str,
        number: usize,
        pod: &NetNs,
        node: &NetNs,
    ) -> Result<f64> {
        let pod_name = pod_name(number);
        let mut process = Command::new(&self.program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("bench{number:08}"))
            .env("CNI_NETNS", pod.process_path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.folder)
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod_name}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let config = self.config.to_string();
        let (milliseconds, output) = node
            .run(|| -> Result<_> {
                let start = Instant::now();
                let mut child = process.spawn().context("cannot execute it")?;
                if let Some(mut stdin) = child.stdin.take() {
                    stdin.write_all(config.as_bytes())?;
                }
                let mut output = String::new();
                if let Some(mut stdout) = child.stdout.take() {
                    stdout.read_to_string(&mut output)?;
                }
                if let Some(mut stderr) = child.stderr.take() {
                    stderr.read_to_string(&mut output)?;
                }
                let status = child.wait()?;
                let took = start.elapsed().as_secs_f64() * 1000.0;
                if !status.success() {
                    bail!("{status}: {output}");
                }
                Ok((took, output))
            })?
            .with_context(|| format!("{} {command} {pod_name}", self.program.display()))?;
        if command == "ADD" && !output.contains("\"ips\"") {
            bail!("{} ADD {pod_name} gave no address: {output}", self.program.display());
        }
        Ok(milliseconds)
    }
}
