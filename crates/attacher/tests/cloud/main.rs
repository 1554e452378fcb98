//! What the cloud is asked for: scenes, and lives at random.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "one that cannot set itself up shall panic"
)]

mod lives;
mod never_both;
mod scenes;
mod world;
