//! Attaching on both APIs: the bitts binary as attacher and beside a CSI driver's controller over a real
//! unix socket, which fails, takes its time and dies. Kubelets are faked: they keep to the handshake
//! of A35.

mod bad_input;
mod coming;
mod kills;
mod kubelets;
mod noticed;
mod stage;

use bitts_e2e::suite::Suite;

fn main() {
    let mut suite = Suite::default();
    bad_input::add(&mut suite);
    coming::add(&mut suite);
    kills::add(&mut suite);
    noticed::add(&mut suite);
    suite.run()
}
