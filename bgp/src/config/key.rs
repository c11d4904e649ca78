//! Keys that sign the segments of a connection.

/// A key of TCP-AO (RFC 5925), a Master Key Tuple. It needs a kernel that has it: Linux 6.7 with CONFIG_TCP_AO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AoKey {
    /// SendID: names the key in segments of ours.
    pub send_id: u8,
    /// RecvID: names the key in segments of the peer's.
    pub receive_id: u8,
    /// What signs.
    pub algorithm: AoAlgorithm,
    /// The master key, 1 to 80 octets.
    pub secret: String,
}

/// The algorithms that everybody has (RFC 5926 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    #[default]
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac,
}

#[cfg(feature = "driver")]
impl AoAlgorithm {
    /// Returns what Linux calls it.
    pub(crate) const fn kernel_name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac(sha1)",
            Self::AesCmac => "cmac(aes128)",
        }
    }
}

/// What signs the segments to and from a peer.
#[cfg(feature = "driver")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// RFC 2385.
    Md5(String),
    /// RFC 5925; the first one is used at first, the others are accepted.
    Ao(Vec<AoKey>),
}
