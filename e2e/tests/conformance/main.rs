//! What controllers and kubectl depend on, shown on bitts-apiserver and on a real kube-apiserver.
//!
//! What one request after the other shows is a request file in `tests/requests`; here is what needs
//! code: things that happen at the same time, and answers that are compared in part.

mod discovery;
mod history;
mod races;
mod watches;

use std::path::Path;

use bitts_e2e::suite::Suite;
use bitts_e2e::transcript;

fn main() -> anyhow::Result<()> {
    let mut suite = Suite::default();
    discovery::add(&mut suite);
    history::add(&mut suite);
    races::add(&mut suite);
    watches::add(&mut suite);
    transcript::add_all(
        &mut suite,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests"),
    )?;
    suite.run()
}
