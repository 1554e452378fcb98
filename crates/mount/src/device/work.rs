//! What a child does with the device that is its standard input.

use super::error::Kind;
use super::{FsType, check, format, grow, held::Held, loops, mount};
use crate::work::{Done, Failure};

/// The kind of work, and within it:
pub(crate) const DEVICE: &str = "device";
pub(super) const IDENTIFY: &str = "identify";
pub(super) const FORMAT: &str = "format";
pub(super) const CHECK: &str = "check";
pub(super) const MOUNT: &str = "mount";
pub(super) const GROW: &str = "grow";
pub(super) const ATTACH: &str = "attach";
pub(super) const FIND: &str = "find";
pub(super) const DETACH: &str = "detach";

/// The answer when a file system was grown.
pub(super) const GROWN: &str = "grown";

/// Does the work that these words say; the answer is for who called.
pub(crate) fn perform(words: &[&str]) -> Result<Done, Failure> {
    if let [MOUNT, fs, options @ ..] = words {
        return mount::mount(fs, options).map(Done::Mounted);
    }
    answer(words).map(Done::Said)
}

fn answer(words: &[&str]) -> Result<String, Failure> {
    let quietly = |done: Result<(), Failure>| done.map(|()| String::new());
    match words {
        [IDENTIFY] => {
            let judgement = format::look(&Held::to_read()?)?;
            Ok(judgement.contents().to_words())
        }
        [FORMAT, fs] => match FsType::named(fs) {
            Some(fs) => quietly(format::format(fs)),
            None => Err(nonsense(words)),
        },
        [CHECK, found] => quietly(check::check(found)),
        [GROW] => Ok(if grow::grow()? { GROWN } else { "" }.to_owned()),
        [ATTACH, access] => loops::attach_here(access),
        [FIND] => loops::find_here(),
        [DETACH] => quietly(loops::detach_here()),
        _ => Err(nonsense(words)),
    }
}

fn nonsense(words: &[&str]) -> Failure {
    let message = format!("no such work: {words:?}");
    Failure::of(Kind::Program.code(), message)
}
