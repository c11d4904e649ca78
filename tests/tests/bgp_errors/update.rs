//! Errors in UPDATEs (RFC 4271 §6.3 as revised by RFC 7606, 6793, 7607, 8669, 9234, 9774).

#[path = "update/any_attribute.rs"]
mod any_attribute;
#[path = "update/base.rs"]
mod base;
#[path = "update/bounds.rs"]
mod bounds;
#[path = "update/extensions.rs"]
mod extensions;
#[path = "update/multiprotocol.rs"]
mod multiprotocol;
#[path = "update/paths.rs"]
mod paths;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde_json::Value;
use voile_tests::{
    bgp::raw::{self, Message, NOTIFICATION, Raw, hex},
    wait_for,
};

use super::speaker::{Fixture, Side, capabilities};

/// What a message did to the route that was there, and to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The new route took the place of the old one.
    Accepted,
    /// The same, without the attribute at fault.
    Discarded,
    /// The old route is gone because the new one is malformed.
    Withdrawn,
    /// There is no route, and nothing was wrong.
    Gone,
    /// The new route is kept but not used.
    Refused,
    /// The old route stayed.
    Ignored,
    /// NOTIFICATION with code, subcode and data; all routes of the session are gone.
    Reset(u8, u8, Vec<u8>),
}

use Outcome::{Accepted, Discarded, Gone, Ignored, Refused, Withdrawn};

fn reset(code: u8, subcode: u8, data: &str) -> Outcome {
    Outcome::Reset(code, subcode, hex(data))
}

/// Which message is sent.
///
/// In attributes `O`, `P`, `N` stand for a good ORIGIN, AS_PATH and NEXT_HOP, `L` for the LOCAL_PREF of an internal peer,
/// `R` for a good MP_REACH_NLRI with the IPv6 prefix of the row.
enum Body {
    /// Attributes, and the IPv4 prefix of the row as NLRI.
    V4(&'static str),
    /// Attributes, with the IPv6 prefix in them if anywhere.
    V6(&'static str),
    /// Withdrawn routes, attributes, NLRI.
    Parts(&'static str, &'static str, &'static str),
    /// Everything after the header.
    Raw(&'static str),
}

use Body::{Parts, V4, V6};

struct Row {
    clause: &'static str,
    name: &'static str,
    body: Body,
    external: Outcome,
    internal: Outcome,
    /// Capabilities of the peer if not the usual ones.
    capabilities: Option<&'static str>,
    /// The prefix to look at if not the usual one; nothing is there before.
    prefix: Option<&'static str>,
}

fn row(clause: &'static str, name: &'static str, body: Body, both: Outcome) -> Row {
    Row {
        clause,
        name,
        body,
        external: both.clone(),
        internal: both,
        capabilities: None,
        prefix: None,
    }
}

impl Row {
    /// Expects something else of an internal peer.
    fn internal(self, internal: Outcome) -> Self {
        Self { internal, ..self }
    }

    /// Looks at another prefix, which is new.
    fn about(self, prefix: &'static str) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// The peer announces these capabilities only.
    fn with(self, capabilities: &'static str) -> Self {
        Self { capabilities: Some(capabilities), ..self }
    }
}

/// IPv4 and IPv6, two-octet AS numbers.
const OLD: &str = "0104 0001 00 01  0104 0002 00 01";
/// The same, and IPv4 routes may have IPv6 next hops (RFC 8950).
const EXTENDED: &str = "0104 0001 00 01  0104 0002 00 01  0506 0001 0001 0002";
/// IPv4 only, two-octet AS numbers.
const ONLY_IPV4: &str = "0104 0001 00 01";

const PREFIX: [&str; 2] = ["10.7.0.0/16", "2001:db8:7::/48"];
const NLRI: &str = "10 0a07";

fn attributes(text: &str, side: Side, four_octets: bool) -> Vec<u8> {
    let path = match (side, four_octets) {
        (Side::External, true) => "400206 02 01 0000fdea",
        (Side::External, false) => "400204 02 01 fdea",
        (Side::Internal, _) => "400200",
    };
    let local_pref = match side {
        Side::External => "",
        Side::Internal => "400504 00000064",
    };
    let reach = "800e1c 0002 01 10 20010db8000000000000000000000009 00 30 20010db80007";
    let text = text.replace('O', "400101 00").replace('P', path).replace('N', "400304 0a090909");
    hex(&text.replace('L', local_pref).replace('R', reach))
}

struct Session<'a> {
    fixture: &'a Fixture,
    side: Side,
    name: String,
    raw: Raw,
    four_octets: bool,
}

impl Session<'_> {
    fn peer(&self) -> Value {
        self.fixture.voile.peer(&self.name).unwrap()
    }

    /// Returns our path for a prefix.
    fn path(&self, prefix: &str) -> Option<Value> {
        let paths = self.fixture.voile.paths(prefix).unwrap();
        paths.into_iter().find(|path| path["peer"] == self.name.as_str())
    }

    fn announce(&mut self, more: &str, nlri: &str) {
        let attributes = attributes(&format!("O P N {more} L"), self.side, self.four_octets);
        self.raw.send(&raw::update(&[], &attributes, &hex(nlri)));
    }

    /// Waits until everything sent so far was handled: `None`, or the message that ended the session.
    fn settle(&mut self) -> Option<Message> {
        self.announce("", "10 0aff");
        self.raw.patience(Duration::from_millis(20));
        wait_for("the end of the messages", Duration::from_secs(60), || {
            match self.raw.receive() {
                Some(message) if message.kind == NOTIFICATION => return Ok(Some(message)),
                Some(_) => return Err("a message came".to_owned()),
                None => (),
            }
            self.path("10.255.0.0/16").map(|_| None).ok_or_else(|| format!("{:#}", self.peer()))
        })
    }
}

fn run(fixture: &Fixture, side: Side, number: usize, row: &Row) -> Outcome {
    let own = capabilities(side);
    let four_octets = row.capabilities.is_none();
    let capabilities = row.capabilities.map_or(own, hex);
    let raw = fixture.connect(side, number);
    let raw = raw.establish(&Fixture::open(side, number, &capabilities));
    let name = side.address(number).to_string();
    let mut session = Session { fixture, side, name, raw, four_octets };
    // What is there before: both prefixes with MED 1, and a neighbour that must stay.
    session.announce("800404 00000001", "10 0a07 10 0a08");
    let v6 = attributes("R O P 800404 00000001 L", side, four_octets);
    session.raw.send(&raw::update(&[], &v6, &[]));
    let usual = PREFIX[usize::from(matches!(row.body, V6(_)))];
    let prefix = row.prefix.unwrap_or(usual);
    let body = match row.body {
        V4(text) => raw::update(&[], &attributes(text, side, four_octets), &hex(NLRI)),
        V6(text) => raw::update(&[], &attributes(text, side, four_octets), &[]),
        Parts(withdrawn, text, nlri) => {
            raw::update(&hex(withdrawn), &attributes(text, side, four_octets), &hex(nlri))
        }
        Body::Raw(text) => raw::message(raw::UPDATE, &hex(text)),
    };
    session.raw.send(&body);
    let end = session.settle();
    let peer = session.peer();
    if let Some(Message { body, .. }) = end {
        assert!(session.path("10.8.0.0/16").is_none(), "routes of a session that was reset");
        return Outcome::Reset(body[0], body[1], body[2..].to_vec());
    }
    assert_eq!(peer["state"], "Established");
    assert!(session.path("10.8.0.0/16").is_some(), "a route that the message did not name is gone");
    let path = session.path(prefix);
    let withdrawn = peer["treatedAsWithdraw"].as_u64().unwrap();
    let discarded = peer["discardedAttributes"].as_u64().unwrap();
    match path {
        None if withdrawn > 0 => Withdrawn,
        None => Gone,
        Some(path) if path["usage"] == "rejected" => Refused,
        Some(path) if path["med"] == 1 => Ignored,
        Some(_) if discarded > 0 => Discarded,
        Some(_) => Accepted,
    }
}

fn check(test: &str, rows: &[Row]) {
    let more = "passive = true\ngraceful-restart = false\nextended-next-hop = true";
    let Some(fixture) = Fixture::start(test, rows.len(), more) else { return };
    fixture.voile.wait_peer(&Side::External.address(0).to_string(), |_| true);
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for side in Side::BOTH {
            let (wrong, fixture) = (&wrong, &fixture);
            scope.spawn(move || {
                for (number, row) in rows.iter().enumerate() {
                    let expected = match side {
                        Side::External => &row.external,
                        Side::Internal => &row.internal,
                    };
                    let found = run(fixture, side, number, row);
                    if found != *expected {
                        let line = format!(
                            "{} [RFC {}], {side:?}: expected {expected:02x?}, found {found:02x?}",
                            row.name, row.clause
                        );
                        wrong.lock().unwrap().insert((number, side), line);
                    }
                }
            });
        }
    });
    let wrong: Vec<String> = wrong.into_inner().unwrap().into_values().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len() * 2, wrong.join("\n"));
}
