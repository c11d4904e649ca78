//! TCP-AO (RFC 5925), which Linux has since 6.7 if it was built with CONFIG_TCP_AO.

use std::{io, os::fd::BorrowedFd};

use libc::c_int;

use super::socket_option::{self, set, socket_address, tcp_socket};
use crate::{
    config::{AoAlgorithm, AoKey},
    types::Prefix,
};

/// `TCP_AO_ADD_KEY` and `TCP_AO_DEL_KEY` of linux/tcp.h.
const TCP_AO_ADD_KEY: c_int = 38;
const TCP_AO_DEL_KEY: c_int = 39;
/// `TCP_AO_MAXKEYLEN`.
const MAX_KEY: usize = 80;
/// The bits `set_current` and `set_rnext`: sign with this key at once, and ask the peer to.
const SET_BOTH: u32 = 0b11;

/// `struct tcp_ao_add`.
#[repr(C, align(8))]
struct TcpAoAdd {
    address: [u8; 128],
    algorithm: [u8; 64],
    interface: i32,
    set: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    /// 0: 12 octets (RFC 5926 §3.2).
    mac_length: u8,
    flags: u8,
    key_length: u8,
    key: [u8; MAX_KEY],
}

/// `struct tcp_ao_del`.
#[repr(C, align(8))]
struct TcpAoDel {
    address: [u8; 128],
    interface: i32,
    set: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    next: u8,
    flags: u8,
}

/// Where a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// On a listening socket: it waits for the peer's choice.
    Accept,
    /// On a connection of ours: it is used at once.
    First,
}

fn refusal(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no TCP-AO: it needs Linux 6.7 or later, built with CONFIG_TCP_AO",
        ),
        Some(libc::ENOENT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel lacks the algorithm: hmac-sha1 needs CONFIG_CRYPTO_SHA1, aes-cmac CONFIG_CRYPTO_CMAC",
        ),
        // RFC 5925 §3.1: identifiers must not overlap where addresses do.
        Some(libc::EEXIST) => io::Error::new(
            io::ErrorKind::AlreadyExists,
            "another key with the same id covers these addresses: a peer within a range needs ids of its own",
        ),
        Some(libc::EKEYREJECTED) => socket_option::mixed_signatures(),
        _ => error,
    }
}

/// Adds a key for segments from and to the addresses of a prefix.
pub(super) fn add(
    socket: BorrowedFd<'_>,
    peers: &Prefix,
    key: &AoKey,
    purpose: Use,
) -> io::Result<()> {
    let mut algorithm = [0; 64];
    for (place, byte) in algorithm.iter_mut().zip(key.algorithm.kernel_name().bytes()) {
        *place = byte;
    }
    let mut bytes = [0; MAX_KEY];
    let secret = key.secret.as_bytes();
    let place = bytes.get_mut(..secret.len()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the secret is longer than 80 octets")
    })?;
    place.copy_from_slice(secret);
    let add = TcpAoAdd {
        address: socket_address(peers.address()),
        algorithm,
        interface: 0,
        set: if purpose == Use::First { SET_BOTH } else { 0 },
        reserved: 0,
        prefix_length: peers.length(),
        send_id: key.send_id,
        receive_id: key.receive_id,
        mac_length: 0,
        flags: 0,
        key_length: u8::try_from(secret.len()).unwrap_or(0),
        key: bytes,
    };
    set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add).map_err(refusal)
}

/// Removes a key.
pub(super) fn remove(socket: BorrowedFd<'_>, peers: &Prefix, key: &AoKey) -> io::Result<()> {
    let del = TcpAoDel {
        address: socket_address(peers.address()),
        interface: 0,
        set: 0,
        reserved: 0,
        prefix_length: peers.length(),
        send_id: key.send_id,
        receive_id: key.receive_id,
        current: 0,
        next: 0,
        flags: 0,
    };
    match set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &del) {
        // There was none.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(refusal),
    }
}

/// Says what the kernel misses, if it misses something: a key is set on a socket that is thrown away.
pub(super) fn check(algorithm: AoAlgorithm) -> io::Result<()> {
    let socket = tcp_socket(true)?;
    let key = AoKey { send_id: 1, receive_id: 1, algorithm, secret: "a key to try".to_owned() };
    let anybody = Prefix::host(std::net::IpAddr::from([192, 0, 2, 1]));
    add(std::os::fd::AsFd::as_fd(&socket), &anybody, &key, Use::Accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pahole` shows them for Linux 6.7.
    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!((size_of::<TcpAoAdd>(), size_of::<TcpAoDel>()), (288, 144));
        let (add, del) =
            (std::mem::offset_of!(TcpAoAdd, key), std::mem::offset_of!(TcpAoDel, flags));
        assert_eq!((add, del), (208, 143));
        assert_eq!(std::mem::offset_of!(TcpAoAdd, prefix_length), 202);
    }

    #[test]
    fn a_kernel_without_it_is_told_apart() {
        for algorithm in [AoAlgorithm::HmacSha1, AoAlgorithm::AesCmac] {
            if let Err(error) = check(algorithm) {
                assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("CONFIG_"), "{error}");
            }
        }
    }
}
