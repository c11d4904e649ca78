//! The conversation between shim and daemon: frames of length and JSON over a unix socket.
//!
//! A frame is four octets of length (big-endian) and that many octets of JSON. Requests are wrapped in an envelope
//! with the protocol's version, so that a shim from before or after an upgrade gets a clear answer. The shim asks,
//! the daemon answers, in turns; one connection serves one runtime command.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use kernel::MacAddr;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::spec::{Attachment, CniError, code};

/// Version of this protocol; changes when an old peer would misunderstand.
pub const PROTOCOL: u32 = 1;
/// Largest frame accepted, in octets: a GC list of some thousand attachments.
pub const MAX_FRAME: usize = 4 << 20;
/// Octets of the length in front of each frame.
pub const HEADER: usize = 4;

/// What the shim asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase")]
pub enum Request {
    /// Give the container an address and its policy; answered with [`Response::Wire`].
    Add(Add),
    /// The container is wired; answered with [`Response::Done`] when its host route is there.
    Wired(Wired),
    /// The container is gone; answered with [`Response::Done`], also when it was never known.
    Del(Del),
    /// What should the container look like? Answered with [`Response::Wire`].
    Check(Check),
    /// Release everything of the network but these; answered with [`Response::Done`].
    Gc(Gc),
    /// Can ADD be served? Answered with [`Response::Done`] or an error with code 50 or 51.
    Status,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "camelCase")]
pub enum Response {
    /// Wire the container like this; its policy is in the kernel.
    Wire(Wiring),
    /// It is done.
    Done,
    /// It can't be done; the shim prints it as is.
    Error(CniError),
}

/// The pod, as the kubelet names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; older runtimes don't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Sandbox container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_container_id: Option<String>,
}

/// See [`Request::Add`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Container and interface.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Path of the container's network namespace.
    pub netns: PathBuf,
    /// The pod; absent outside of Kubernetes.
    pub pod: Option<Pod>,
    /// Name of the network.
    pub network: String,
    /// Addresses asked for (`ips` capability, `IP=` argument); empty means any.
    #[serde(default)]
    pub requested_ips: Vec<IpAddr>,
    /// MTU of the configuration; the daemon chooses when absent.
    pub mtu: Option<u32>,
}

/// See [`Request::Wired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wired {
    /// Container and interface.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Ethernet address inside the container.
    #[serde(with = "mac_text")]
    pub container_mac: MacAddr,
    /// Index of the host's end.
    pub host_ifindex: u32,
}

/// See [`Request::Del`]; also the contents of a journal file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Del {
    /// Container and interface.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Path of the namespace, if it was still known.
    pub netns: Option<PathBuf>,
    /// The pod; absent outside of Kubernetes.
    pub pod: Option<Pod>,
    /// Name of the network.
    pub network: String,
}

/// See [`Request::Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Container and interface.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The pod; absent outside of Kubernetes.
    pub pod: Option<Pod>,
    /// Name of the network.
    pub network: String,
}

/// See [`Request::Gc`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gc {
    /// Name of the network.
    pub network: String,
    /// What must stay.
    pub valid_attachments: Vec<Attachment>,
}

/// How to wire a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wiring {
    /// Name of the host's end of the veth.
    pub host_interface: String,
    /// MTU of both ends.
    pub mtu: u32,
    /// Ethernet address of the host's end.
    #[serde(with = "mac_text")]
    pub host_mac: MacAddr,
    /// Addresses of the container, /32 and /128.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one per family that has an address.
    pub gateways: Vec<IpAddr>,
}

impl Wiring {
    /// Wires these addresses in the usual way.
    pub fn new(host_interface: impl Into<String>, mtu: u32, addresses: Vec<IpNet>) -> Self {
        let has = |v4: bool| addresses.iter().any(|address| address.addr().is_ipv4() == v4);
        let v4 = has(true).then_some(crate::GATEWAY_V4);
        let v6 = has(false).then_some(crate::GATEWAY_V6);
        let gateways = v4.into_iter().chain(v6).collect();
        Self {
            host_interface: host_interface.into(),
            mtu,
            host_mac: crate::HOST_MAC,
            addresses,
            gateways,
        }
    }

    /// Returns the gateway for addresses of the same family.
    pub fn gateway_for(&self, address: &IpNet) -> Option<IpAddr> {
        let v4 = address.addr().is_ipv4();
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == v4)
    }
}

/// A frame that can't be read or made.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("frame of {0} octets is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// Not the JSON we expect.
    #[error("frame is not a message of this protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    protocol: u32,
    #[serde(flatten)]
    message: T,
}

#[derive(Deserialize)]
struct ProtocolOnly {
    #[serde(default)]
    protocol: u32,
}

/// Makes the frame of a request.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, FrameError> {
    encode(&Envelope { protocol: PROTOCOL, message: request })
}

/// Makes the frame of a response.
pub fn encode_response(response: &Response) -> Result<Vec<u8>, FrameError> {
    encode(response)
}

/// Reads a request out of a frame's contents (without length); the `Err` is the answer to send.
pub fn decode_request(contents: &[u8]) -> Result<Request, Response> {
    let refuse =
        |code, msg: &str, details: String| Response::Error(CniError::new(code, msg, details));
    let malformed = |error: serde_json::Error| {
        refuse(code::DECODING_FAILURE, "request from voile-cni", error.to_string())
    };
    let ProtocolOnly { protocol } = serde_json::from_slice(contents).map_err(malformed)?;
    if protocol != PROTOCOL {
        let details = format!(
            "voile-cni speaks protocol {protocol}, voile-node {PROTOCOL}; restart the voile-node pod of this node so \
             that it installs its own voile-cni"
        );
        return Err(refuse(
            code::TRY_AGAIN,
            "voile-cni and voile-node are of different versions",
            details,
        ));
    }
    serde_json::from_slice(contents).map(|Envelope { message, .. }| message).map_err(malformed)
}

/// Reads a response out of a frame's contents (without length).
pub fn decode_response(contents: &[u8]) -> Result<Response, FrameError> {
    Ok(serde_json::from_slice(contents)?)
}

/// Reads the length in front of a frame.
pub fn frame_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Takes the contents of the first frame out of what was received so far, for buffering readers:
/// `(contents, octets used)`, or `None` until there is a whole one.
pub fn split_frame(received: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, rest)) = received.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = frame_length(*header)?;
    Ok(rest.get(..length).map(|contents| (contents, HEADER.saturating_add(length))))
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let contents = serde_json::to_vec(message)?;
    let length = u32::try_from(contents.len()).ok().filter(|_| contents.len() <= MAX_FRAME);
    let length = length.ok_or(FrameError::TooLong(contents.len()))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&contents);
    Ok(frame)
}

/// Reads any JSON type; here so that journal and tests share one place.
pub(crate) fn from_json<T: DeserializeOwned>(octets: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(octets)?)
}

/// `ee:ee:ee:ee:ee:ee` in JSON.
mod mac_text {
    use kernel::MacAddr;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(mac: &MacAddr, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MacAddr, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
