//! The child's part: a share, mounted for this process alone, and what is done on it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitts_mount::dir::Dir;
use bitts_mount::{nfs, sweep};

use super::AT_ONCE;
use super::call::{Answer, Call, Outcome, Work, line};
use crate::disk::{Disk, DiskError};
use crate::operator::Order;
use crate::run::{LocalWorker, SWEEP_ANYWAY, now};
use crate::site::Share;
use crate::task::Report;

/// How long until what could not be swept away is tried again.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

type Words = Arc<Mutex<UnixStream>>;
type Lines = BufReader<UnixStream>;

/// Mounts the share that the first line names, and does what the others say until there are no more.
pub(super) fn serve(stream: UnixStream) -> io::Result<()> {
    // A volume's directory is made with the mode that its class says, in one call to the server.
    rustix::process::umask(rustix::fs::Mode::empty());
    let words: Words = Arc::new(Mutex::new(stream.try_clone()?));
    let mut lines = BufReader::new(stream);
    let Some(first) = next(&mut lines)? else {
        return Ok(());
    };
    let share: Share = serde_json::from_str(&first)?;
    let disk = match open(&share) {
        Ok(disk) => disk,
        Err(why) => return say(&words, &Answer::NotMounted(why)),
    };
    let worker = LocalWorker::on(disk);
    say(&words, &Answer::Mounted)?;
    let (sweeps, swept) = mpsc::channel();
    std::thread::spawn({
        let (worker, words) = (worker.clone(), words.clone());
        move || sweep_when_told(&worker, &words, &swept)
    });
    // Each takes the next call itself: one that were handed on would wake a thread more.
    let lines = Arc::new(Mutex::new(lines));
    let (ends, ended) = mpsc::channel();
    for _ in 0..AT_ONCE {
        let (worker, words) = (worker.clone(), words.clone());
        let (lines, sweeps, ends) = (lines.clone(), sweeps.clone(), ends.clone());
        std::thread::spawn(move || ends.send(answer_all(&worker, &words, &sweeps, &lines)));
    }
    drop(ends);
    // The process ends with the first that has nothing more to do.
    ended.recv().unwrap_or(Ok(()))
}

fn answer_all(
    worker: &LocalWorker,
    words: &Words,
    sweeps: &Sender<()>,
    lines: &Mutex<Lines>,
) -> io::Result<()> {
    loop {
        let text = next(&mut lines.lock().unwrap_or_else(PoisonError::into_inner))?;
        let Some(text) = text else {
            return Ok(());
        };
        answer(worker, words, sweeps, serde_json::from_str(&text)?);
    }
}

/// What is said next; none when nobody calls any more.
fn next(lines: &mut Lines) -> io::Result<Option<String>> {
    lines.lines().next().transpose()
}

fn open(share: &Share) -> Result<Disk, String> {
    let options = nfs::Options::parse(share.options.iter().map(|option| &**option))
        .map_err(|error| error.to_string())?;
    let named = nfs::Share {
        server: share.server.to_string(),
        path: share.path.to_string(),
    };
    let root: Dir = nfs::open(&named, &options).map_err(|error| error.to_string())?;
    Disk::within(root).map_err(|error| error.to_string())
}

fn answer(worker: &LocalWorker, words: &Words, sweeps: &Sender<()>, call: Call) {
    let (outcome, to_sweep, is_failure) = match call.work {
        Work::Task(task) => {
            let report = worker.perform_here(task);
            if let Report::Copying { .. } = report {
                let worker = worker.clone();
                // What fails is told by who asks for the copy next.
                std::thread::spawn(move || worker.copy_here());
            }
            let to_sweep = matches!(report, Report::Removed(_) | Report::Scanned(_));
            let is_failure = matches!(
                report,
                Report::ScanFailed(_)
                    | Report::NotMade(..)
                    | Report::NotGrown(..)
                    | Report::Failed(..)
            );
            (Outcome::Report(report), to_sweep, is_failure)
        }
        Work::Order(order) => {
            let to_sweep = matches!(order, Order::Purge(_));
            let told = worker.obey(order).map_err(|why| why.to_string());
            let is_failure = told.is_err();
            (Outcome::Told(told), to_sweep, is_failure)
        }
    };
    // Nobody hears it when the caller is gone, and this process goes too.
    let _ = say(words, &Answer::Done(call.id, outcome));
    if is_failure && worker.all().any(|disk| disk.probe().is_err()) {
        // The server forgot what is mounted: it is mounted anew for the next call.
        std::process::exit(1);
    }
    if to_sweep {
        let _ = sweeps.send(());
    }
}

fn say(words: &Words, what: &Answer) -> io::Result<()> {
    let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
    words.write_all(&line(what)?)
}

/// Sweeps the trash whenever something came into it, now and then for what is kept no longer, and again
/// where that failed.
fn sweep_when_told(worker: &LocalWorker, words: &Words, told: &Receiver<()>) {
    while !matches!(
        told.recv_timeout(SWEEP_ANYWAY),
        Err(RecvTimeoutError::Disconnected)
    ) {
        // What was told meanwhile is swept with it.
        while told.try_recv().is_ok() {}
        while let Err(error) = sweep_all(worker) {
            let why = format!("something stays in the trash for now: {error}");
            let _ = say(words, &Answer::Warning(why));
            std::thread::sleep(SWEEP_AGAIN);
        }
    }
}

fn sweep_all(worker: &LocalWorker) -> Result<(), DiskError> {
    for disk in worker.all() {
        loop {
            let volumes = disk.to_sweep(now())?;
            if volumes.is_empty() {
                break;
            }
            for volume in volumes {
                disk.sweep(&volume, |dir, name| sweep::remove(dir, name))?;
            }
        }
    }
    Ok(())
}
