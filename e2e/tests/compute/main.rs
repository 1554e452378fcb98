//! Disks of a cloud: a Compute Engine API that is slow, turns requests away and fails late; its client, and
//! the bitts binary as cloud-attacher beside agents that are faked and keep to the handshake of A35.

mod calls;
mod kills;
mod mark;
mod stage;

use bitts_e2e::suite::Suite;

fn main() {
    let mut suite = Suite::default();
    calls::add(&mut suite);
    kills::add(&mut suite);
    mark::add(&mut suite);
    suite.run()
}
