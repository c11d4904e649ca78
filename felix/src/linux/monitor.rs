//! Hears what others do to our table.

#![expect(unsafe_code, reason = "no library sets a socket filter or a netlink group membership")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use super::{
    socket::Socket,
    uapi::{GROUP, INET, chain, elem, msg, rule, set},
    wire::{Message, Messages},
};

/// Notifications of nf_tables changes that we did not make ourselves.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    table: String,
}

/// What was heard since the last look.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Heard {
    /// Changes of our table by others, in words; at most [`Heard::SHOWN`].
    pub changes: Vec<String>,
    /// How many changes there were.
    pub count: usize,
    /// Notifications were lost: anything may have changed.
    pub lost: bool,
}

impl Heard {
    /// Changes that are kept in words.
    pub const SHOWN: usize = 20;

    /// Whether our table must be looked at.
    #[must_use]
    pub const fn is_drift(&self) -> bool {
        self.lost || self.count > 0
    }

    /// Adds what was heard later.
    pub fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.lost |= later.lost;
        self.changes.extend(later.changes);
        self.changes.truncate(Self::SHOWN);
    }
}

impl Monitor {
    /// Listens for changes of a table, except those made through the socket with this port.
    pub fn open(table: &str, own_port: u32) -> io::Result<Self> {
        let socket = Socket::open(false)?;
        ignore_port(socket.fd().as_raw_fd(), own_port)?;
        join(socket.fd().as_raw_fd())?;
        Ok(Self { socket, table: table.to_owned() })
    }

    /// Reads everything queued.
    pub fn drain(&mut self) -> io::Result<Heard> {
        let mut heard = Heard::default();
        loop {
            match self.socket.receive_now() {
                Ok(None) => return Ok(heard),
                Ok(Some(datagram)) => {
                    for change in Messages(datagram).filter_map(|each| describe(&each, &self.table))
                    {
                        heard.count += 1;
                        if heard.changes.len() < Heard::SHOWN {
                            heard.changes.push(change);
                        }
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.lost = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.fd().as_raw_fd()
    }
}

/// What a notification says, if it is about the table.
fn describe(message: &Message<'_>, table: &str) -> Option<String> {
    let kind = message.nft()?;
    let attrs = message.attrs();
    // The table's name is attribute 1 of tables, chains, rules, sets and element lists alike.
    if message.family() != Some(INET) || attrs.string(chain::TABLE) != Some(table) {
        return None;
    }
    let chain_name = || attrs.string(chain::NAME).unwrap_or("?");
    let rule_chain = || attrs.string(rule::CHAIN).unwrap_or("?");
    let set_name = || attrs.string(set::NAME).unwrap_or("?");
    let members = || attrs.nested(elem::LIST_ELEMENTS).map_or(0, Iterator::count);
    Some(match kind {
        msg::NEWTABLE => "table written".to_owned(),
        msg::DELTABLE => "table removed".to_owned(),
        msg::NEWCHAIN => format!("chain {} written", chain_name()),
        msg::DELCHAIN => format!("chain {} removed", chain_name()),
        msg::NEWRULE => format!("rule added to chain {}", rule_chain()),
        msg::DELRULE => format!("rule removed from chain {}", rule_chain()),
        msg::NEWSET => format!("set {} written", set_name()),
        msg::DELSET => format!("set {} removed", set_name()),
        msg::NEWSETELEM => format!("{} members added to {}", members(), set_name()),
        msg::DELSETELEM => format!("{} members removed from {}", members(), set_name()),
        _ => return None,
    })
}

fn join(fd: RawFd) -> io::Result<()> {
    const SOL_NETLINK: libc::c_int = 270;
    set_option(fd, SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &GROUP)
}

/// Drops notifications whose header carries our own port: a transaction of ours with 100 000 members would otherwise
/// overflow this socket with what we know already.
fn ignore_port(fd: RawFd, port: u32) -> io::Result<()> {
    /// `nlmsg_pid` in the netlink header.
    const PORT_OFFSET: u32 = 12;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    // The filter loads words in network byte order; the header has host order.
    let mut program = [
        step(0x20, 0, 0, PORT_OFFSET),
        step(0x15, 0, 1, port.to_be()),
        step(0x06, 0, 0, 0),
        step(0x06, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `value` lives during the call and `len` is its size; the kernel copies what it needs.
    let result =
        unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
