mod collision;
mod errors;
mod graceful;
mod history;
mod lab;
mod policy;
mod routes;
mod session;
