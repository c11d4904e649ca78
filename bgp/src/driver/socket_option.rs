//! Socket options that no safe crate offers: TCP MD5 (RFC 2385), TTLs and GTSM (RFC 5082); UDP with TTLs for BFD, ICMPv6 of
//! routers.
#![expect(unsafe_code, reason = "setsockopt with structures of the kernel")]

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use libc::{c_int, c_void, socklen_t};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6,
    SockaddrStorage, recvmsg, sendto,
};

use crate::types::Prefix;

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
/// `TCP_MD5SIG_EXT`: keys for prefixes, since Linux 4.13.
const TCP_MD5SIG_EXT: c_int = 32;
/// `TCP_MD5SIG_FLAG_PREFIX`.
const FLAG_PREFIX: u8 = 1;

/// Sets an option to a structure of the kernel.
pub(super) fn set<T>(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
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

/// Sets the password of segments from and to the addresses of a prefix; `None` removes it. Longer prefixes win.
pub(super) fn set_password(
    socket: BorrowedFd<'_>,
    peers: &Prefix,
    password: Option<&str>,
) -> io::Result<()> {
    let key_bytes = password.unwrap_or_default().as_bytes();
    let mut key = [0; MAX_KEY];
    let place = key.get_mut(..key_bytes.len()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the password is longer than 80 octets")
    })?;
    place.copy_from_slice(key_bytes);
    let is_host = *peers == Prefix::host(peers.address());
    let (option, flags) =
        if is_host { (libc::TCP_MD5SIG, 0) } else { (TCP_MD5SIG_EXT, FLAG_PREFIX) };
    let signature = TcpMd5Sig {
        address: socket_address(peers.address()),
        flags,
        prefix_length: if is_host { 0 } else { peers.length() },
        key_length: u16::try_from(key_bytes.len()).unwrap_or(0),
        interface: 0,
        key,
    };
    match set(socket, libc::IPPROTO_TCP, option, &signature) {
        // There was none.
        Err(error) if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EKEYREJECTED) => Err(mixed_signatures()),
        result => result,
    }
}

/// The kernel would not know which signature to ask an address for (EKEYREJECTED).
pub(super) fn mixed_signatures() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "TCP MD5 and TCP-AO exclude each other, also where a range covers the address: give both the same kind of key",
    )
}

/// Makes a TCP socket to try options on.
pub(super) fn tcp_socket(is_ipv4: bool) -> io::Result<OwnedFd> {
    let family = if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// `struct sockaddr_in` or `sockaddr_in6`, port 0.
pub(super) fn socket_address(address: IpAddr) -> [u8; 128] {
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
    set_ttl(socket, is_ipv4, 255)?;
    set_least_ttl(socket, is_ipv4, 256 - c_int::from(hops.max(1)))
}

/// Accepts segments from anywhere.
pub(super) fn unset_ttl_security(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    set_least_ttl(socket, is_ipv4, 0)
}

fn set_least_ttl(socket: BorrowedFd<'_>, is_ipv4: bool, least: c_int) -> io::Result<()> {
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

/// Makes a UDP socket.
pub(super) fn udp_socket(is_ipv4: bool) -> io::Result<OwnedFd> {
    let family = if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(nix::sys::socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Binds a socket.
pub(super) fn bind(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// Asks for the TTL or hop limit of what comes in.
pub(super) fn set_receive_ttl(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    let yes: c_int = 1;
    if is_ipv4 {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, &yes)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &yes)
    }
}

/// Takes a datagram: its length, its sender, and the TTL or hop limit that it arrived with.
pub(super) fn receive_with_ttl(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SocketAddr>, Option<u8>)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(c_int, c_int);
    let flags = MsgFlags::empty();
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let ttl = message.cmsgs()?.find_map(|each| match each {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
            u8::try_from(ttl).ok()
        }
        _ => None,
    });
    let from = message.address.and_then(|address| match address.as_sockaddr_in() {
        Some(address) => Some(SocketAddr::V4((*address).into())),
        None => address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())),
    });
    Ok((message.bytes, from, ttl))
}

/// Makes a socket for router solicitations and advertisements.
pub(super) fn router_socket() -> io::Result<OwnedFd> {
    /// `ICMP6_FILTER` of linux/icmpv6.h.
    const ICMP6_FILTER: c_int = 1;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::IcmpV6;
    let socket = nix::sys::socket::socket(AddressFamily::Inet6, SockType::Raw, flags, protocol)?;
    // A bit that is set blocks: all but 133 and 134.
    let mut filter = [u32::MAX; 8];
    filter[4] &= !(1 << 5 | 1 << 6);
    let (yes, no, hops): (c_int, c_int, c_int) = (1, 0, 255);
    set(socket.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)?;
    set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &yes)?;
    set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &no)?;
    set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)?;
    Ok(socket)
}

/// Sends to a group on an interface, after joining the group of routers there.
pub(super) fn send_to_group(
    socket: BorrowedFd<'_>,
    interface: u32,
    group: Ipv6Addr,
    bytes: &[u8],
) -> io::Result<()> {
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let membership = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: all_routers.octets() },
        ipv6mr_interface: interface,
    };
    match set(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &membership) {
        // A member already.
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => (),
        result => result?,
    }
    let address = SockaddrIn6::from(SocketAddrV6::new(group, 0, 0, interface));
    sendto(socket.as_raw_fd(), bytes, &address, MsgFlags::empty())?;
    Ok(())
}
