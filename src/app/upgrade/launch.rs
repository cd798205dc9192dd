//! Starts the new binary, with one end of a socket, and hears what it says on standard error while it starts.

use crate::app::upgrade::VARIABLE;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of a failed start that are told.
const LINES: usize = 10;
/// A line is told up to here, in bytes.
const LINE: u64 = 1_000;
/// How long a process that has let go of the socket may take to end by itself.
const LAST: Duration = Duration::from_secs(2);

/// What this process was started by, to be started once more.
#[derive(Clone, Debug)]
pub(in crate::app) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// As this process was started. To be asked early: the path may be relative to a directory that is left later.
    pub(in crate::app) fn of_this() -> Option<Program> {
        let mut arguments = env::args_os();
        let first = arguments.next().unwrap_or_default();
        let here = env::current_dir().unwrap_or_default();
        // Not where /proc/self/exe leads: that is the file as it was, and may be deleted.
        let path = resolve(&first, &here, env::var_os("PATH").as_deref()).or_else(|| env::current_exe().ok())?;
        Some(Program { path, arguments: arguments.collect() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be run, or descriptors have run out.
    pub(super) fn launch(&self) -> io::Result<Launched> {
        let (ours, theirs) = UnixStream::pair()?;
        // Nobody else starts programs here, so that nobody else inherits it.
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(VARIABLE, theirs.as_raw_fd().to_string()).stderr(Stdio::piped());
        // What the service manager passed on was for this process.
        for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        let mut child = command.spawn()?;
        drop(theirs);
        let words = Arc::new(Mutex::new(VecDeque::new()));
        let (end, heard) = channel();
        if let Some(said) = child.stderr.take() {
            let words = words.clone();
            thread::Builder::new().name("new-stderr".into()).spawn(move || {
                hear(said, &words);
                let _ = end.send(());
            })?;
        }
        Ok(Launched { child, stream: ours, words, heard })
    }
}

/// The file that a program was started by, as an absolute path; as the shell finds it where it is a bare name.
fn resolve(first: &OsStr, here: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if first.is_empty() {
        return None;
    }
    if Path::new(first).components().count() > 1 || Path::new(first).is_absolute() {
        // Without the steps that lead nowhere.
        return Some(here.join(first).components().collect());
    }
    let runs =
        |file: &PathBuf| file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    env::split_paths(path?).map(|dir| here.join(dir).join(first)).find(runs)
}

/// Passes on what is said, and remembers the last of it.
fn hear(said: impl Read, words: &Mutex<VecDeque<String>>) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    while (&mut said).take(LINE).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let _ = io::stderr().write_all(&line);
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LINES {
            words.pop_front();
        }
        words.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The new process while it starts.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) stream: UnixStream,
    words: Arc<Mutex<VecDeque<String>>>,
    /// Told when it can say nothing more.
    heard: Receiver<()>,
}

impl Launched {
    /// Ends it, if it does not end by itself; how it ended. After that it reads no socket any more.
    pub(super) fn end(&mut self) -> String {
        let until = Instant::now() + LAST;
        let _ = self.stream.shutdown(Shutdown::Both);
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!("it ended with {status}");
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        "it did not end by itself, and was killed".to_owned()
    }

    /// What it said last, once it has ended.
    pub(super) fn last_words(&self) -> String {
        // Unless somebody else has inherited its standard error, that has ended, too.
        let _ = self.heard.recv_timeout(LAST);
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        match words.is_empty() {
            true => "said nothing".to_owned(),
            false => format!("said: {}", words.iter().cloned().collect::<Vec<_>>().join(" | ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("l4lb"), "").unwrap();
        std::fs::write(bin.join("plain"), "").unwrap();
        std::fs::set_permissions(bin.join("l4lb"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("/nowhere:{}", bin.display());
        let cases = [
            ("absolute", "/usr/bin/l4lb", Some(PathBuf::from("/usr/bin/l4lb"))),
            ("relative to where it was started", "target/l4lb", Some(dir.path().join("target/l4lb"))),
            ("beside it", "./l4lb", Some(dir.path().join("l4lb"))),
            ("by its name alone", "l4lb", Some(bin.join("l4lb"))),
            ("a file that cannot be run", "plain", None),
            ("nowhere", "l4lb-of-old", None),
            ("nothing", "", None),
        ];
        for (why, first, expected) in cases {
            assert_eq!(resolve(OsStr::new(first), dir.path(), Some(OsStr::new(&path))), expected, "{why}");
        }
    }

    #[test]
    fn what_a_failed_start_said_last_is_told_with_how_it_ended() {
        let script = "echo first >&2; for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i >&2; done; exit 7";
        let rows: [(&str, &str, &str, &[&str], &str); 3] = [
            ("lines", "/bin/sh", "exit status: 7", &["-c", script], "said: line 1 | line 2"),
            ("none", "/bin/false", "exit status: 1", &[], "said nothing"),
            ("one that stays", "/bin/sleep", "was killed", &["60"], "said nothing"),
        ];
        for (why, path, ended, arguments, said) in rows {
            let program = Program { path: path.into(), arguments: arguments.iter().map(Into::into).collect() };
            let mut launched = program.launch().unwrap();
            let told = format!("{} and {}", launched.end(), launched.last_words());
            assert!(told.contains(ended) && told.contains(said), "{why}: {told}");
            assert!(!told.contains("first"), "{why}: only the last lines: {told}");
        }
        let program = Program { path: "/nowhere/at/all".into(), arguments: Vec::new() };
        assert!(program.launch().is_err());
    }
}
