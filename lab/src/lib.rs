//! A whole cluster in network namespaces of one machine: nodes, routers, pods and an API server, from one topology file.
//!
//! `up` starts a supervisor ([`supervisor`]) that owns every namespace and process and writes down each of them before
//! it exists, so that [`cleanup`] can remove every trace whatever happened. What users watch ([`demo`]) is a client of it.

pub mod apiserver;
pub mod cleanup;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod demo;
pub mod enter;
pub mod fabric;
pub mod paths;
pub mod processes;
pub mod procfs;
pub mod rootless;
pub mod routers;
pub mod state;
pub mod supervisor;
pub mod topology;
