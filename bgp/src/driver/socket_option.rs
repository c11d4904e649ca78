//! Socket options that no safe crate offers: TCP MD5 (RFC 2385), TTLs and GTSM (RFC 5082).
#![expect(unsafe_code, reason = "setsockopt with structures of the kernel")]

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, c_void, socklen_t};

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: c_int,
    key: [u8; MAX_KEY],
}

/// `TCP_MD5SIG_MAXKEYLEN`.
const MAX_KEY: usize = 80;

fn set<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the borrow; the kernel reads `length` bytes of `value` and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the password of segments from and to an address; `None` removes it.
pub(super) fn set_password(
    socket: BorrowedFd<'_>,
    peer: IpAddr,
    password: Option<&str>,
) -> io::Result<()> {
    let key_bytes = password.unwrap_or_default().as_bytes();
    let mut key = [0; MAX_KEY];
    let place = key.get_mut(..key_bytes.len()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the password is longer than 80 octets")
    })?;
    place.copy_from_slice(key_bytes);
    let signature = TcpMd5Sig {
        address: socket_address(peer),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(key_bytes.len()).unwrap_or(0),
        interface: 0,
        key,
    };
    match set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature) {
        // There was none.
        Err(error) if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`, port 0.
fn socket_address(address: IpAddr) -> [u8; 128] {
    let mut storage = [0; 128];
    let (family, offset, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, 4, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, 8, address.octets().to_vec()),
    };
    let family = u16::try_from(family).unwrap_or(0).to_ne_bytes();
    for (place, byte) in storage.iter_mut().zip(family) {
        *place = byte;
    }
    for (place, byte) in storage.iter_mut().skip(offset).zip(octets) {
        *place = byte;
    }
    storage
}

/// Sets the TTL or hop limit of what is sent.
pub(super) fn set_ttl(socket: BorrowedFd<'_>, is_ipv4: bool, ttl: u8) -> io::Result<()> {
    let ttl = c_int::from(ttl);
    if is_ipv4 {
        set(socket, libc::IPPROTO_IP, libc::IP_TTL, &ttl)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &ttl)
    }
}

/// Drops what comes from further away than this many hops.
pub(super) fn set_ttl_security(socket: BorrowedFd<'_>, is_ipv4: bool, hops: u8) -> io::Result<()> {
    let least = 256 - c_int::from(hops.max(1));
    set_ttl(socket, is_ipv4, 255)?;
    if is_ipv4 {
        set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least)
    }
}

/// Leaves IPv4 to the IPv4 socket.
pub(super) fn set_ipv6_only(socket: BorrowedFd<'_>) -> io::Result<()> {
    let yes: c_int = 1;
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &yes)
}
