//! A file that keeps what must not be lost: replaced as a whole or not at all, whenever the process or the machine ends.
//!
//! Knows: bytes and their place on a disk. Must not touch: what the bytes mean; whoever reads them is given as a closure.
//! [`StateFile::write`] waits for the disk, so it is for threads that may wait: never for a worker.
//!
//! Bytes go to `NAME.tmp` beside the file, and to the disk; then that takes the name of the file, and the directory goes
//! to the disk (rename(2), fsync(2)). A crash leaves the file as it was before or as it is after, and perhaps a `NAME.tmp`
//! that nobody reads; the next write removes it. `NAME.lock` is locked by the process that writes, and stays empty.

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Ten thousand changed backends take a few MiB; a file that is larger is none of ours.
const LARGEST: u64 = 256 << 20;

/// See the module.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    broken: Option<Broken>,
    lock: Mutex<Lock>,
}

/// A file that could not be read, and was moved out of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where it is now.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { moved_to, why } = self;
        write!(f, "the state file could not be read: {why}; it was moved to {}", moved_to.display())
    }
}

/// The right to write.
#[derive(Debug)]
enum Lock {
    Held(#[expect(dead_code, reason = "it unlocks when it is dropped")] Flock<File>),
    /// A predecessor may still have it, or a successor already: taken with the next write.
    Later,
}

/// What was found in place of the file at the start, and the right to write it.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    bytes: io::Result<Option<Vec<u8>>>,
    lock: io::Result<Lock>,
}

/// Why a file cannot be used. Displays as `PATH: what; fix`.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Something else has its name.
    #[error("{0} is not a regular file; write the path of one, which need not exist yet")]
    NoFile(PathBuf),
    /// Its directory is not there, or may not be written to.
    #[error("{path} cannot be written: {why}; create its directory, and let the user that l4lb runs as write there")]
    NotWritable {
        /// The file beside it that was to be made.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another process writes it.
    #[error("{0} is in use by another process; end that one, or give each a file of its own")]
    InUse(PathBuf),
    /// It is broken and cannot be moved out of the way; the next write would destroy it.
    #[error("{path} is broken ({broken}) and cannot be moved aside: {why}; move it away yourself")]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        broken: String,
        /// What the system said to moving it.
        why: io::Error,
    },
}

/// Whether another process may have the file at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nobody may.
    Alone,
    /// The one that is succeeded may still have it: what it kept comes from there, and the file is not read.
    Successor,
}

/// Locks and reads the file at `path`, as whoever the process is now: both may be another user's than the one to change to.
/// What is wrong is told by [`StateFile::open`]. `owner`, a user and a group, is who the process is to change to: the lock is
/// to be had by whoever succeeds it as that user.
pub fn look(path: &Path, start: Start, owner: Option<(Option<u32>, u32)>) -> Found {
    // What is linked to is replaced, not the link; and the directory is known from here on, wherever we go.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let lock = match start {
        // Told by `open`; nothing is put beside it.
        _ if is_something_else(&path) => Err(io::ErrorKind::InvalidInput.into()),
        Start::Alone => lock(&path).and_then(|lock| give(lock, owner)).map(Lock::Held),
        Start::Successor => Ok(Lock::Later),
    };
    let bytes = match read(&path) {
        _ if start == Start::Successor => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Found { path, bytes, lock }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Not waiting for a writer, if it should be a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() && file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

impl StateFile {
    /// Takes over the file of `found`, from now on as whoever the process is now, and gives what `read` makes of what is in
    /// it; the default when there is none. What cannot be read, or what `read` refuses, is moved to `NAME.broken`, in place of an older one,
    /// and logged; then the default is given, too.
    ///
    /// # Errors
    /// When what is written later would be lost: see [`Unusable`].
    pub fn open<T: Default>(
        found: Found,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<(StateFile, T), Unusable> {
        let Found { path, bytes, lock } = found;
        if is_something_else(&path) {
            return Err(Unusable::NoFile(path));
        }
        let tmp = beside(&path, "tmp");
        // Whoever has the lock may be about to use that name.
        let probe = match &lock {
            Ok(Lock::Held(_)) => make(&tmp).and_then(|_| fs::remove_file(&tmp)),
            _ => Ok(()),
        };
        probe.map_err(|why| Unusable::NotWritable { path: tmp, why })?;
        let lock = match lock {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Unusable::InUse(path)),
            Err(why) => return Err(Unusable::NotWritable { path: beside(&path, "lock"), why }),
        };
        let read = match bytes {
            Ok(None) => Ok(T::default()),
            Ok(Some(bytes)) => read(&bytes),
            Err(error) => Err(error.to_string()),
        };
        let (broken, value) = match read {
            Ok(value) => (None, value),
            Err(why) => (Some(set_aside(&path, why)?), T::default()),
        };
        Ok((StateFile { path, broken, lock: Mutex::new(lock) }, value))
    }

    /// What was wrong with the file at the start.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Makes `bytes` what the file holds. They are on the disk when this comes back; then no crash takes them away.
    ///
    /// # Errors
    /// What the system says, with the path. The file then holds what it held before; or, only where the very last step
    /// fails, perhaps `bytes` already.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.take()?;
        replace(&self.path, bytes)
    }

    /// The same, where nothing is written if the file holds `bytes` already; nor if there is no file, and `nothing` to keep.
    ///
    /// # Errors
    /// As [`StateFile::write`].
    pub fn hold(&self, bytes: &[u8], nothing: bool) -> io::Result<()> {
        self.take()?;
        match read(&self.path) {
            Ok(held) if held == bytes => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && nothing => Ok(()),
            _ => replace(&self.path, bytes),
        }
    }

    /// Takes the right to write, where it is not here.
    fn take(&self) -> io::Result<()> {
        let mut held = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*held {
            Lock::Held(_) => {}
            Lock::Later => {
                let of = |error: io::Error| match error.kind() {
                    io::ErrorKind::WouldBlock => io::Error::other("another process has the state file"),
                    _ => named(&beside(&self.path, "lock"), error),
                };
                *held = Lock::Held(lock(&self.path).map_err(of)?);
            }
        }
        Ok(())
    }

    /// Lets a successor have the file. The next write, or [`StateFile::hold`], takes it again, if there is none.
    pub fn release(&self) {
        *self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Lock::Later;
    }
}

/// True when the name is that of a directory, a device or the like.
fn is_something_else(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| !about.is_file())
}

/// The same name with something behind it.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes a new file that only we may read. One of that name is what a crash has left, or a trap: it is not written to.
fn make(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let path = beside(path, "lock");
    let mut options = OpenOptions::new();
    // Whoever may write there must not have us give him another file, and there is nothing to follow.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Makes the lock, which is nothing but a name, another user's.
fn give(lock: Flock<File>, owner: Option<(Option<u32>, u32)>) -> io::Result<Flock<File>> {
    let Some((user, group)) = owner else { return Ok(lock) };
    let about = lock.metadata()?;
    // One that is no lock of ours, or has another name besides, stays whose it is.
    if about.is_file() && about.len() == 0 && about.nlink() == 1 && about.uid() == geteuid().as_raw() {
        fchown(&*lock, user, Some(group))?;
    }
    Ok(lock)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = beside(path, "tmp");
    let write = || {
        let mut file = make(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, path)
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&tmp);
        return Err(named(path, error));
    }
    sync_directory(path).map_err(|error| named(path, error))
}

/// Has the directory of `path` on the disk: what has which name.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn set_aside(path: &Path, why: String) -> Result<Broken, Unusable> {
    let moved_to = beside(path, "broken");
    if let Err(error) = fs::rename(path, &moved_to) {
        return Err(Unusable::Stuck { path: path.to_owned(), broken: why, why: error });
    }
    // Whoever looks for it after a crash should find it under one of the two names, and does so either way.
    let _ = sync_directory(path);
    let broken = Broken { moved_to, why };
    log::error!("admin.state_file: {broken}; what the API had changed is lost, and the configuration file alone holds");
    Ok(broken)
}

#[cfg(test)]
mod tests;
