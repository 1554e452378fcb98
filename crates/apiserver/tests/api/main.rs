//! The API as its clients see it. Rules of single kinds are tested beside them; here is what holds for all.

#![expect(clippy::unwrap_used, reason = "in a test it is the check")]

mod client;
mod collector;
mod deletion;
mod faults;
mod https;
mod kube_client;
mod lists;
mod objects;
mod watches;
