//! The log: a bounded channel and a thread that writes. A line that finds the channel full is dropped and counted, so
//! that nobody who logs ever waits for a disk or a terminal.

use crate::app::account::Account;
use crate::config::{Global, Spot};
use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;
use simplelog::{ConfigBuilder, WriteLogger};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Lines that may wait for the writer.
const WAITING: usize = 4096;
/// How long the end of the process waits for the last lines.
const LAST: Duration = Duration::from_secs(2);

enum Item {
    Line(Vec<u8>),
    /// What comes behind this goes to a file that is opened anew.
    Reopen,
    Finish(Sender<()>),
}

/// The running log.
pub(super) struct Log {
    lines: Option<Sender<Item>>,
    _writer: Option<JoinHandle<()>>,
}

/// Begins to log as `global` says. A file that is made for it belongs to `account`.
///
/// # Errors
/// The log file cannot be opened: a text that names it, and the place in the configuration that does.
pub(super) fn start(global: &Global, debug: bool, account: Option<&Account>) -> Result<Log, String> {
    let out = match &global.log_file {
        None => Out::Stderr,
        Some(path) => {
            let file = first(path, account).map_err(|error| {
                let at = global.log_file_at.as_ref().map_or_else(|| "l4lb: global.log_file".to_owned(), Spot::to_string);
                let path = path.display();
                format!("{at}: {path} cannot be opened: {error}; create its directory and allow writing to it, or change log_file")
            })?;
            Out::File(file, path.clone())
        }
    };
    let (lines, waiting) = bounded(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let front = Front { lines: lines.clone(), lost: lost.clone(), line: Vec::new() };
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("l4lb")
        .build();
    // A process logs once: a second balancer in it (a test, the demo) goes on with the first one's log.
    // It would take everything: `set_level` says what comes to it, and can say something else later.
    if WriteLogger::init(LevelFilter::Trace, config, front).is_err() {
        return Ok(Log { lines: None, _writer: None });
    }
    set_level(global, debug);
    let writer = thread::Builder::new().name("log".into()).spawn(move || write(out, &waiting, &lost));
    let writer = writer.map_err(|error| format!("l4lb: the log cannot start: {error}"))?;
    Ok(Log { lines: Some(lines), _writer: Some(writer) })
}

/// From now on logs what `global` says, or at least what level debug does.
pub(super) fn set_level(global: &Global, debug: bool) {
    log::set_max_level(if debug { LevelFilter::Debug.max(global.log_level) } else { global.log_level });
}

impl Log {
    /// Has a log that goes to a file go to one of that name from now on, whatever has become of the old one. What was
    /// logged before this still goes to the old one.
    pub(super) fn reopen(&self) {
        let Some(lines) = &self.lines else { return };
        if lines.send_timeout(Item::Reopen, LAST).is_err() {
            log::error!("the log file is not reopened: too many lines wait to be written; send the signal again");
        }
    }

    /// Waits, for a bounded time, until what was logged is written.
    pub(super) fn finish(self) {
        let Some(lines) = self.lines else { return };
        let (done, written) = bounded(1);
        if lines.send_timeout(Item::Finish(done), LAST).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }
}

/// What the logger writes to: gathers a line and sends it off.
struct Front {
    lines: Sender<Item>,
    lost: Arc<AtomicU64>,
    line: Vec<u8>,
}

impl Write for Front {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") && self.lines.try_send(Item::Line(std::mem::take(&mut self.line))).is_err() {
            self.line.clear();
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines go.
enum Out {
    Stderr,
    File(File, PathBuf),
}

impl Out {
    fn put(&mut self, line: &[u8]) {
        // A log that cannot be written is no reason to stop serving.
        let _ = match self {
            Out::Stderr => io::stderr().write_all(line),
            Out::File(file, _) => file.write_all(line),
        };
    }

    /// Opens the file anew; the old one goes on where that fails.
    fn reopen(&mut self) {
        let Out::File(file, path) = self else {
            return log::info!("the log goes to standard error: there is no file to reopen");
        };
        match open(path) {
            Ok(new) => {
                *file = new;
                log::info!("log file {} reopened", path.display());
            }
            Err(error) => log::error!(
                "log file {} cannot be reopened: {error}; the old one goes on; allow writing there and send the signal again",
                path.display()
            ),
        }
    }
}

/// As [`open`] does; a file that was not there is given to who will write it. Never one that was: it may be anything.
fn first(path: &Path, account: Option<&Account>) -> io::Result<File> {
    let Some((user, group)) = account.map(Account::owner) else { return open(path) };
    match OpenOptions::new().create_new(true).append(true).open(path) {
        Ok(file) => {
            // Who may not give it away is not root, and cannot become another user either, which is told then.
            let _ = fchown(&file, user, Some(group));
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(path),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write(mut out: Out, lines: &Receiver<Item>, lost: &AtomicU64) {
    for item in lines {
        match item {
            Item::Line(line) => out.put(&line),
            Item::Reopen => out.reopen(),
            Item::Finish(done) => drop(done.send(())),
        }
        match lost.swap(0, Relaxed) {
            0 => {}
            some => out.put(
                format!("[WARN] {some} lines of this log were lost: they came faster than they could be written\n")
                    .as_bytes(),
            ),
        }
    }
}
