//! Against a real kernel, each test in a network namespace of its own.

mod fixture;
mod program;
mod speed;
