//! Messages made of parts that fit, most of the time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    dice::Dice,
    ours::{OUR_AS, THEIR_AS, put_route},
    reading::{Route, Terms},
};

pub(crate) fn terms(dice: &mut Dice) -> Terms {
    Terms {
        internal: dice.roll(2) == 0,
        four_octets: dice.roll(4) > 0,
        add_path: dice.roll(4) == 0,
    }
}

/// The routes that messages are about.
pub(crate) fn pool(terms: Terms) -> Vec<Route> {
    let mut routes = Vec::new();
    for number in 0..6_u8 {
        let length = [16, 20, 24, 31, 32, 9][usize::from(number)];
        let path_id = if terms.add_path { u32::from(number % 3) } else { 0 };
        let v4 = IpAddr::from(Ipv4Addr::new(10, 32 * number, 7, number));
        let v6 = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, number.into(), 7, 0, 0, 0, 1));
        routes.push(Route::new(v4, length, path_id));
        routes.push(Route::new(v6, 4 * length, path_id));
    }
    routes
}

/// Returns the body of an UPDATE.
pub(crate) fn update(dice: &mut Dice, terms: Terms) -> Vec<u8> {
    let pool = pool(terms);
    let mut pick = |dice: &mut Dice, v4: bool, most: usize| {
        let mut nlri = Vec::new();
        for _ in 0..dice.roll(most + 1) {
            let family: Vec<&Route> =
                pool.iter().filter(|route| route.address.is_ipv4() == v4).collect();
            put_route(family[dice.roll(family.len())], terms.add_path, &mut nlri);
        }
        nlri
    };
    let withdrawn = pick(dice, true, 3);
    let announced = pick(dice, true, 3);
    let mut attributes = Vec::new();
    if dice.roll(4) == 0 {
        let v4 = dice.roll(4) == 0;
        let mut value = vec![0, if v4 { 1 } else { 2 }, 1];
        value.extend(pick(dice, v4, 3));
        put(&mut attributes, 0x80, 15, &value);
    }
    let reach = dice.roll(2) == 0;
    if reach {
        put(&mut attributes, 0x80, 14, &reach_value(dice, &mut pick));
    }
    if reach || !announced.is_empty() || dice.roll(6) == 0 {
        let next_hop = !announced.is_empty() || dice.roll(6) == 0;
        shared(dice, terms, next_hop, &mut attributes);
    }
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    body
}

fn reach_value(
    dice: &mut Dice,
    pick: &mut impl FnMut(&mut Dice, bool, usize) -> Vec<u8>,
) -> Vec<u8> {
    let global = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).octets();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets();
    let v4 = dice.roll(4) == 0;
    let mut value = vec![0, if v4 { 1 } else { 2 }, 1];
    match dice.roll(if v4 { 4 } else { 3 }) {
        0 => {
            value.push(32);
            value.extend(global);
            value.extend(link_local);
        }
        3 => value.extend([4, 10, 9, 9, 9]),
        _ => {
            value.push(16);
            value.extend(global);
        }
    }
    value.push(0);
    value.extend(pick(dice, v4, 3));
    value
}

/// The attributes that all announced routes share.
fn shared(dice: &mut Dice, terms: Terms, next_hop: bool, out: &mut Vec<u8>) {
    let mut parts: Vec<(u8, u8, Vec<u8>)> = vec![(0x40, 1, vec![octet(dice, 3)])];
    parts.push((0x40, 2, as_path(dice, terms)));
    if next_hop {
        parts.push((0x40, 3, vec![10, 9, 9, octet(dice, 9) + 1]));
    }
    if terms.internal {
        parts.push((0x40, 5, number(dice)));
        if dice.roll(4) == 0 {
            parts.push((0x80, 9, vec![10, 8, 8, octet(dice, 200)]));
            parts.push((0x80, 10, list(dice, 4)));
        }
    }
    let aggregator = if terms.four_octets { 8 } else { 6 };
    let optional: [(u8, u8, Vec<u8>); 10] = [
        (0x80, 4, number(dice)),
        (0x40, 6, Vec::new()),
        (0xc0, 7, [vec![0; aggregator - 5], vec![7, 10, 8, 8, 8]].concat()),
        (0xc0, 8, list(dice, 4)),
        (0xc0, 16, [0, 2, 0xfd, 0xea, 0, 0, 0, octet(dice, 200)].to_vec()),
        (0xc0, 32, list(dice, 12)),
        (0xc0, 35, vec![0, 0, 0xfd, 0xea]),
        (0xc0, 254, vec![1, 2, 3]),
        (0xc0, 17, [vec![2, 1], 70_000_u32.to_be_bytes().to_vec()].concat()),
        (0xc0, 18, [70_000_u32.to_be_bytes(), [10, 8, 8, 8]].concat()),
    ];
    for each in optional {
        // AS4_PATH and AS4_AGGREGATOR are from old speakers only.
        if dice.roll(4) == 0 && (!matches!(each.1, 17 | 18) || !terms.four_octets) {
            parts.push(each);
        }
    }
    if dice.roll(4) == 0 {
        let at = dice.roll(parts.len());
        parts.rotate_left(at);
    }
    for (flags, code, value) in parts {
        let partial = if flags & 0xc0 == 0xc0 && dice.roll(8) == 0 { 0x20 } else { 0 };
        let extended = if dice.roll(8) == 0 { 0x10 } else { 0 };
        put(out, flags | partial | extended, code, &value);
    }
}

fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    let extended = flags & 0x10 != 0 || value.len() > 255;
    out.extend([flags | if extended { 0x10 } else { 0 }, code]);
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    out.extend(if extended { &length[..] } else { &length[1..] });
    out.extend(value);
}

fn octet(dice: &mut Dice, sides: usize) -> u8 {
    u8::try_from(dice.roll(sides)).unwrap()
}

fn number(dice: &mut Dice) -> Vec<u8> {
    (0..4).map(|_| octet(dice, 256)).collect()
}

fn list(dice: &mut Dice, size: usize) -> Vec<u8> {
    (0..size * (1 + dice.roll(3))).map(|_| octet(dice, 256)).collect()
}

/// One or two segments; never with our own AS, whose routes are kept aside.
fn as_path(dice: &mut Dice, terms: Terms) -> Vec<u8> {
    let mut value = Vec::new();
    let segments = if terms.internal { dice.roll(3) } else { 1 + dice.roll(2) };
    for segment in 0..segments {
        let count = 1 + octet(dice, 3);
        value.extend([2, count]);
        for place in 0..count {
            let asn = match (segment, place, terms.internal) {
                (0, 0, false) => u32::from(THEIR_AS),
                _ => 64_000 + u32::try_from(dice.roll(900)).unwrap(),
            };
            assert_ne!(asn, OUR_AS);
            if terms.four_octets {
                value.extend(asn.to_be_bytes());
            } else {
                value.extend(u16::try_from(asn).unwrap().to_be_bytes());
            }
        }
    }
    value
}
