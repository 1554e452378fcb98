//! The runtime against a scripted API, in virtual time: an hour passes in no time.

mod destroying;
mod fake;
mod leading;
mod running;
mod script;
mod watching;
mod writing;
