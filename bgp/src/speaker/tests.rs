mod collision;
mod errors;
mod graceful;
mod lab;
mod policy;
mod routes;
mod session;
