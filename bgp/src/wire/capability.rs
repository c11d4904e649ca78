//! Capabilities of an OPEN (RFC 5492). Unknown ones are remembered by number and otherwise ignored.

use bytes::{BufMut, BytesMut};

use super::reader::{Reader, Truncated};
use crate::types::{Asn, Families, Family};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ROLE: u8 = 9;
const LONG_LIVED: u8 = 71;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const RECEIVE: u8 = 1;
const SEND: u8 = 2;

/// What a speaker announces in its OPEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// AFI and SAFI pairs of RFC 4760; none at all means IPv4 unicast.
    pub multiprotocol: Vec<(u16, u8)>,
    /// RFC 2918.
    pub route_refresh: bool,
    /// AFI, SAFI and AFI of the next hop (RFC 8950).
    pub extended_next_hop: Vec<(u16, u16, u16)>,
    /// RFC 7313.
    pub enhanced_route_refresh: bool,
    /// RFC 8654.
    pub extended_message: bool,
    /// RFC 6793.
    pub four_octet_as: Option<Asn>,
    /// RFC 4724.
    pub graceful_restart: Option<GracefulRestart>,
    /// RFC 7911.
    pub add_path: Vec<AddPath>,
    /// RFC 9234: one, unless the peer contradicts itself.
    pub roles: Vec<u8>,
    /// RFC 9494; without families the speaker only understands what others announce.
    pub long_lived: Option<Vec<LongLivedFamily>>,
    /// Codes of capabilities that we do not know.
    pub unknown: Vec<u8>,
}

/// The graceful restart capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker restarted.
    pub restarting: bool,
    /// N: notifications keep the routes too (RFC 8538).
    pub notification: bool,
    /// Seconds until the speaker is back; twelve bits.
    pub restart_time: u16,
    /// Families whose routes survive.
    pub families: Vec<GracefulRestartFamily>,
}

/// One family of the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartFamily {
    /// AFI.
    pub afi: u16,
    /// SAFI.
    pub safi: u8,
    /// F: forwarding went on during the restart.
    pub forwarding: bool,
}

/// One family of the long-lived graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// AFI.
    pub afi: u16,
    /// SAFI.
    pub safi: u8,
    /// F: forwarding went on during the restart.
    pub forwarding: bool,
    /// Seconds that stale routes may live; 24 bits.
    pub stale_time: u32,
}

/// One family of the add-path capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// AFI.
    pub afi: u16,
    /// SAFI.
    pub safi: u8,
    /// 1 receive, 2 send, 3 both.
    pub mode: u8,
}

impl GracefulRestart {
    /// Returns the families of ours that survive.
    pub fn families(&self) -> Families {
        self.families.iter().filter_map(|each| Family::from_wire(each.afi, each.safi)).collect()
    }

    /// Returns the families of ours whose forwarding went on.
    pub fn forwarding(&self) -> Families {
        let kept = self.families.iter().filter(|each| each.forwarding);
        kept.filter_map(|each| Family::from_wire(each.afi, each.safi)).collect()
    }
}

impl Capabilities {
    /// Returns the families of ours that are announced.
    pub fn families(&self) -> Families {
        if self.multiprotocol.is_empty() {
            return Families::IPV4;
        }
        self.multiprotocol.iter().filter_map(|(afi, safi)| Family::from_wire(*afi, *safi)).collect()
    }

    /// Returns the families whose path identifiers the speaker can read.
    pub fn add_path_receive(&self) -> Families {
        self.add_path_mode(RECEIVE)
    }

    /// Returns the families for which the speaker sends path identifiers if it may.
    pub fn add_path_send(&self) -> Families {
        self.add_path_mode(SEND)
    }

    /// RFC 7911 §4: other values of the field make the entry meaningless.
    fn add_path_mode(&self, bit: u8) -> Families {
        let valid = self.add_path.iter().filter(|each| matches!(each.mode, 1..=3));
        let wanted = valid.filter(|each| each.mode & bit != 0);
        wanted.filter_map(|each| Family::from_wire(each.afi, each.safi)).collect()
    }

    /// Reads the capabilities of one optional parameter. A value of the wrong length makes that capability unknown
    /// instead of failing the OPEN: RFC 5492 has no notification for it.
    pub(crate) fn decode_into(&mut self, bytes: &[u8]) -> Result<(), Truncated> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let code = reader.u8()?;
            let value = reader.short_block()?;
            if self.decode_one(code, Reader::new(value)).is_err() {
                self.unknown.push(code);
            }
        }
        Ok(())
    }

    fn decode_one(&mut self, code: u8, mut value: Reader<'_>) -> Result<(), Truncated> {
        match code {
            MULTIPROTOCOL => {
                let family = (value.u16()?, value.array::<2>()?[1]);
                if !self.multiprotocol.contains(&family) {
                    self.multiprotocol.push(family);
                }
            }
            ROUTE_REFRESH => self.route_refresh = true,
            EXTENDED_NEXT_HOP => {
                while !value.is_empty() {
                    self.extended_next_hop.push((value.u16()?, value.u16()?, value.u16()?));
                }
            }
            EXTENDED_MESSAGE => self.extended_message = true,
            ENHANCED_ROUTE_REFRESH => self.enhanced_route_refresh = true,
            FOUR_OCTET_AS => self.four_octet_as = Some(Asn(value.u32()?)),
            GRACEFUL_RESTART => self.graceful_restart = Some(decode_graceful_restart(value)?),
            ADD_PATH => {
                while !value.is_empty() {
                    let (afi, safi, mode) = (value.u16()?, value.u8()?, value.u8()?);
                    self.add_path.push(AddPath { afi, safi, mode });
                }
            }
            ROLE => {
                let role = value.u8()?;
                if !self.roles.contains(&role) {
                    self.roles.push(role);
                }
            }
            LONG_LIVED => self.long_lived = Some(decode_long_lived(value)?),
            _ => self.unknown.push(code),
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        for (afi, safi) in &self.multiprotocol {
            out.put_slice(&[MULTIPROTOCOL, 4]);
            out.put_u16(*afi);
            out.put_slice(&[0, *safi]);
        }
        if !self.extended_next_hop.is_empty() {
            let length = self.extended_next_hop.len().saturating_mul(6);
            out.put_slice(&[EXTENDED_NEXT_HOP, u8::try_from(length).unwrap_or(0)]);
            for (afi, safi, next_hop) in &self.extended_next_hop {
                [*afi, *safi, *next_hop].into_iter().for_each(|field| out.put_u16(field));
            }
        }
        let flags = [
            (self.route_refresh, ROUTE_REFRESH),
            (self.enhanced_route_refresh, ENHANCED_ROUTE_REFRESH),
            (self.extended_message, EXTENDED_MESSAGE),
        ];
        for (_, code) in flags.iter().filter(|(set, _)| *set) {
            out.put_slice(&[*code, 0]);
        }
        if let Some(asn) = self.four_octet_as {
            out.put_slice(&[FOUR_OCTET_AS, 4]);
            out.put_u32(asn.0);
        }
        if let Some(restart) = &self.graceful_restart {
            encode_graceful_restart(restart, out);
        }
        for role in &self.roles {
            out.put_slice(&[ROLE, 1, *role]);
        }
        if let Some(families) = &self.long_lived {
            encode_long_lived(families, out);
        }
        if !self.add_path.is_empty() {
            let length = self.add_path.len().saturating_mul(4);
            out.put_slice(&[ADD_PATH, u8::try_from(length).unwrap_or(0)]);
            for each in &self.add_path {
                out.put_u16(each.afi);
                out.put_slice(&[each.safi, each.mode]);
            }
        }
    }
}

fn decode_graceful_restart(mut value: Reader<'_>) -> Result<GracefulRestart, Truncated> {
    let head = value.u16()?;
    let mut restart = GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        restart_time: head & 0x0fff,
        families: Vec::new(),
    };
    while !value.is_empty() {
        let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
        let forwarding = flags & 0x80 != 0;
        restart.families.push(GracefulRestartFamily { afi, safi, forwarding });
    }
    Ok(restart)
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut BytesMut) {
    let length = restart.families.len().saturating_mul(4).saturating_add(2);
    out.put_slice(&[GRACEFUL_RESTART, u8::try_from(length).unwrap_or(2)]);
    let mut head = restart.restart_time.min(0x0fff);
    if restart.restarting {
        head |= 0x8000;
    }
    if restart.notification {
        head |= 0x4000;
    }
    out.put_u16(head);
    for family in &restart.families {
        out.put_u16(family.afi);
        out.put_slice(&[family.safi, if family.forwarding { 0x80 } else { 0 }]);
    }
}

/// RFC 9494 §3: AFI, SAFI, flags, 24 bits of seconds.
fn decode_long_lived(mut value: Reader<'_>) -> Result<Vec<LongLivedFamily>, Truncated> {
    let mut families = Vec::new();
    while !value.is_empty() {
        let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
        let [a, b, c] = value.array::<3>()?;
        let stale_time = u32::from_be_bytes([0, a, b, c]);
        families.push(LongLivedFamily { afi, safi, forwarding: flags & 0x80 != 0, stale_time });
    }
    Ok(families)
}

fn encode_long_lived(families: &[LongLivedFamily], out: &mut BytesMut) {
    let length = families.len().saturating_mul(7);
    out.put_slice(&[LONG_LIVED, u8::try_from(length).unwrap_or(0)]);
    for family in families {
        out.put_u16(family.afi);
        out.put_slice(&[family.safi, if family.forwarding { 0x80 } else { 0 }]);
        let [_, time @ ..] = family.stale_time.min(0x00ff_ffff).to_be_bytes();
        out.put_slice(&time);
    }
}
