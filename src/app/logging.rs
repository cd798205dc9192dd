//! The log: a bounded channel and a thread that writes. A line that finds the channel full is dropped and counted, so
//! that nobody who logs ever waits for a disk or a terminal.

use crate::config::{Global, Spot};
use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;
use simplelog::{ConfigBuilder, WriteLogger};
use std::fs::OpenOptions;
use std::io::{self, Write};
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
    Finish(Sender<()>),
}

/// The running log.
pub(super) struct Log {
    lines: Option<Sender<Item>>,
    _writer: Option<JoinHandle<()>>,
}

/// Begins to log as `global` says.
///
/// # Errors
/// The log file cannot be opened: a text that names it, and the place in the configuration that does.
pub(super) fn start(global: &Global, debug: bool) -> Result<Log, String> {
    let out: Box<dyn Write + Send> = match &global.log_file {
        None => Box::new(io::stderr()),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|error| {
                let at = global.log_file_at.as_ref().map_or_else(|| "l4lb: global.log_file".to_owned(), Spot::to_string);
                let path = path.display();
                format!("{at}: {path} cannot be opened: {error}; create its directory and allow writing to it, or change log_file")
            })?)
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

fn write(mut out: Box<dyn Write + Send>, lines: &Receiver<Item>, lost: &AtomicU64) {
    // A log that cannot be written is no reason to stop serving.
    for item in lines {
        match item {
            Item::Line(line) => drop(out.write_all(&line)),
            Item::Finish(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
        match lost.swap(0, Relaxed) {
            0 => {}
            some => drop(writeln!(
                out,
                "[WARN] {some} lines of this log were lost: they came faster than they could be written"
            )),
        }
        if lines.is_empty() {
            let _ = out.flush();
        }
    }
}
