//! Ports, protocols and CIDR names: the small types of network objects.

mod cidr;
mod duration;
mod int_or_string;
mod peer;
mod port;
mod protocol;

pub use cidr::{CidrError, cidr_name, parse_cidr, parse_net};
pub use duration::parse_duration;
pub use int_or_string::IntOrString;
pub use peer::parse_peer;
pub use port::{Port, PortError, PortMeaning, PortRange};
pub use protocol::Protocol;
