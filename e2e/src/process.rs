//! A program that never outlives the tests: it ends when its handle is dropped and also when this
//! process dies in any other way, be it by SIGKILL.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long a shell may take to start its program.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs "$@", writes its id to the file "$0", and sends it the signals named on standard input, a
/// pipe from the tests. When that closes, the program is killed; the kernel closes it when the tests
/// die, however that happens.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- & program=$!
echo $program >"$0"
{ while read -r signal; do kill -"$signal" $program; done; kill -9 $program; } <&3 2>/dev/null & guard=$!
wait $program 2>/dev/null; status=$?
kill $guard 2>/dev/null
exit $status
"#;

/// A running program and its log.
pub struct Process {
    name: String,
    shell: Child,
    log: PathBuf,
    id: PathBuf,
}

impl Process {
    /// Starts `program`; what it prints is appended to `<folder>/<its name>.log`.
    pub fn start(program: &Path, arguments: &[String], folder: &Path) -> anyhow::Result<Self> {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self::start_as(&name, program, arguments, folder)
    }

    /// Starts `program` under a name of its own, which its log has, too.
    pub fn start_as(
        name: &str,
        program: &Path,
        arguments: &[String],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let id = folder.join(format!("{name}.pid"));
        // What an earlier program of this name left.
        let _ = std::fs::remove_file(&id);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let shell = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&id)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C in the terminal ends the tests, and they end the program.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let name = name.to_owned();
        Ok(Self {
            name,
            shell,
            log,
            id,
        })
    }

    /// The id of the program itself, not of the shell that guards it.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.id).unwrap_or_default();
            if let Some(id) = text.strip_suffix('\n') {
                return Ok(id.parse()?);
            }
            anyhow::ensure!(start.elapsed() < PATIENCE, "{} never ran", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&mut self, signal: &str) -> anyhow::Result<()> {
        let pipe = self.shell.stdin.as_mut();
        let pipe = pipe.with_context(|| format!("{} was killed", self.name))?;
        writeln!(pipe, "{signal}").with_context(|| format!("{} ended before", self.name))
    }

    /// How the program ended, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.shell.try_wait()?)
    }

    /// Everything that it printed, in earlier runs under this name as well.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error that quotes the end of the log when the program has ended already.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.shell.try_wait()? {
            anyhow::bail!(
                "{} ended early ({status}).\n{}",
                self.name,
                self.last_words()
            );
        }
        Ok(())
    }

    /// The last lines of the log, and where the rest is.
    pub fn last_words(&self) -> String {
        let text = self.printed();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("Its log {} ends with:\n{end}", self.log.display())
    }

    /// Kills the program (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.shell.stdin.take());
        // An error means that it was waited for already.
        let _ = self.shell.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_gone_after_the_drop() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mark = folder.path().join("alive");
        let script = format!(
            "while :; do date +%N > {}; sleep 0.01; done",
            mark.display()
        );
        let mut process =
            Process::start(Path::new("/bin/sh"), &["-c".into(), script], folder.path())?;
        let start = Instant::now();
        while !mark.exists() {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "it never ran");
            process.check_running()?;
        }
        drop(process);
        // A write that was under way in a child of the program may still end.
        std::thread::sleep(Duration::from_millis(50));
        let last = std::fs::read_to_string(&mark)?;
        std::thread::sleep(Duration::from_millis(100));
        anyhow::ensure!(std::fs::read_to_string(&mark)? == last, "it still runs");
        Ok(())
    }

    #[test]
    fn a_program_that_ended_is_an_error_with_its_last_words() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let arguments = ["-c".into(), "echo no such flag; exit 3".into()];
        let mut process = Process::start(Path::new("/bin/sh"), &arguments, folder.path())?;
        let start = Instant::now();
        while process.check_running().is_ok() {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "it never ended");
        }
        let text = process.check_running().expect_err("it ended").to_string();
        anyhow::ensure!(
            text.contains("exit status: 3") && text.contains("no such flag"),
            "{text}"
        );
        Ok(())
    }

    #[test]
    fn a_signal_reaches_the_program() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let arguments = ["-c".into(), script.into()];
        let mut process = Process::start_as("it", Path::new("/bin/sh"), &arguments, folder.path())?;
        let start = Instant::now();
        while !process.printed().contains("ready") {
            anyhow::ensure!(start.elapsed() < PATIENCE, "it never ran");
        }
        anyhow::ensure!(Path::new(&format!("/proc/{}", process.pid()?)).exists());
        process.signal("TERM")?;
        let status = loop {
            if let Some(status) = process.ended()? {
                break status;
            }
            anyhow::ensure!(start.elapsed() < PATIENCE, "it never ended");
        };
        anyhow::ensure!(status.code() == Some(7), "{status}");
        anyhow::ensure!(process.printed().contains("got it"));
        Ok(())
    }
}
