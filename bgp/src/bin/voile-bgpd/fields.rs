//! Values of the configuration file that are written as text. An error carries the line, because serde raises it.

use std::{fmt::Display, marker::PhantomData, net::IpAddr, str::FromStr, time::Duration};

use bgp::{Asn, Prefix, config::AcceptedAs};
use serde::{Deserialize, Deserializer, de};

/// A value with its own notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T> de::Visitor<'_> for Visitor<T>
        where
            T: FromStr,
            T::Err: Display,
        {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(|error| E::custom(format!("'{text}': {error}")))
            }

            // AS numbers may be written bare.
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData)).map(Self)
    }
}

/// A prefix without bits beyond its length: with them, something else was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) Prefix);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let prefix: Prefix = text.parse().map_err(de::Error::custom)?;
        let address = text.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
        if address != Some(prefix.address()) {
            let message = format!("'{text}' has bits beyond its length; did you mean {prefix}?");
            return Err(de::Error::custom(message));
        }
        Ok(Self(prefix))
    }
}

/// `65001`, `"1.10"`, `"external"`, `"internal"`, or a list of numbers and ranges like `"65001-65010"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AsField(pub(crate) AcceptedAs);

impl<'de> Deserialize<'de> for AsField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item {
            Number(u32),
            Text(String),
        }
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "an AS number, a range, a list of them, \"external\" or \"internal\""
        )]
        enum Notation {
            One(Item),
            List(Vec<Item>),
        }
        let read = |item: Item| match item {
            Item::Number(number) => as_range(&number.to_string()),
            Item::Text(text) => as_range(&text),
        };
        let ranges = match Notation::deserialize(deserializer)? {
            Notation::One(Item::Text(text)) if text == "external" => {
                return Ok(Self(AcceptedAs::External));
            }
            Notation::One(Item::Text(text)) if text == "internal" => {
                return Ok(Self(AcceptedAs::Internal));
            }
            Notation::One(item) => vec![read(item)],
            Notation::List(items) => items.into_iter().map(read).collect(),
        };
        let ranges: Result<Vec<_>, String> = ranges.into_iter().collect();
        ranges.map(|ranges| Self(AcceptedAs::Ranges(ranges))).map_err(de::Error::custom)
    }
}

fn as_range(text: &str) -> Result<(Asn, Asn), String> {
    let number = |text: &str| match text.trim().parse::<Asn>() {
        Ok(Asn(0)) => Err("AS 0 belongs to nobody (RFC 7607)".to_owned()),
        Ok(asn) => Ok(asn),
        Err(error) => Err(error.to_string()),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("'{text}' is no range: its first number is the greater one"));
    }
    Ok((first, last))
}

/// A number of seconds, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let duration = Duration::try_from_secs_f64(seconds);
        duration.map(Self).map_err(|error| de::Error::custom(format!("{seconds}: {error}")))
    }
}

/// Zero, or at least three (RFC 4271 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoldTime(pub(crate) u16);

impl<'de> Deserialize<'de> for HoldTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            seconds @ (1 | 2) => Err(de::Error::custom(format!(
                "hold time {seconds}: write 0 for none, or at least 3 seconds"
            ))),
            seconds => Ok(Self(seconds)),
        }
    }
}
