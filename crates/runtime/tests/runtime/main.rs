//! The runtime against a scripted API, in virtual time: an hour passes in no time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod destroying;
mod fake;
mod following;
mod leading;
mod reaching;
mod resyncing;
mod running;
mod script;
mod watching;
mod writing;
