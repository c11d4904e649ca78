//! BGP load for any speaker: many peers in one process, with bytes encoded beforehand, and an exact check of what everyone got.

mod load;
mod peer;
mod plan;
mod run;
mod speaker;
mod table;
mod wire;

pub use run::{Options, Scenario, run};
pub use speaker::{Speaker, SpeakerKind};
