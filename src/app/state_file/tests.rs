use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A value that must be read whole: a number, and as many letters as it says.
#[derive(Debug, Default, PartialEq)]
struct Value(usize);

fn bytes(of: usize) -> Vec<u8> {
    format!("{of}:{}", "x".repeat(of)).into_bytes()
}

fn read(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (number, rest) = text.split_once(':').ok_or("no number")?;
    let number = number.parse().map_err(|_| "no number")?;
    if rest.len() == number { Ok(Value(number)) } else { Err(format!("{} letters, not {number}", rest.len())) }
}

fn open(path: &Path) -> Result<(StateFile, Value), Unusable> {
    StateFile::open(look(path, Start::Alone, None), read)
}

fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    (dir, path)
}

/// The names in the directory of `path`, in order.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_there_at_the_next_start() {
    let (_dir, path) = folder();
    let (file, first) = open(&path).unwrap();
    assert_eq!(first, Value(0), "there was none, which is no error");
    assert_eq!(names(&path), ["state.json.lock"], "nothing was written yet");
    for of in [3, 100_000, 1] {
        file.write(&bytes(of)).unwrap();
        assert_eq!(names(&path), ["state.json", "state.json.lock"]);
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.permissions().mode() & 0o777, about.len() as usize), (0o600, bytes(of).len()));
    }
    drop(file);
    let (file, again) = open(&path).unwrap();
    assert_eq!((again, file.broken()), (Value(1), None));
}

#[test]
fn a_crash_at_any_step_leaves_the_old_one_or_the_new_one() {
    // What there is after a crash between two steps of a write of `new` over `old`; the last of them is the rename.
    let (old, new) = (bytes(30), bytes(40));
    let mut cases = vec![("before the first", None, &old, 30), ("after the last", None, &new, 40)];
    let cuts: Vec<Vec<u8>> = (0..=new.len()).map(|cut| new[..cut].to_vec()).collect();
    cases.extend(cuts.iter().map(|part| ("while the temporary file is written", Some(part), &old, 30)));
    for (why, tmp, held, expected) in cases {
        let (_dir, path) = folder();
        fs::write(&path, held).unwrap();
        if let Some(tmp) = tmp {
            fs::write(beside(&path, "tmp"), tmp).unwrap();
        }
        let (file, value) = open(&path).unwrap();
        assert_eq!((value, file.broken()), (Value(expected), None), "{why}");
        file.write(&bytes(50)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes(50), "{why}");
        assert_eq!(names(&path), ["state.json", "state.json.lock"], "{why}: nothing is left over");
    }
}

#[test]
fn one_that_cannot_be_read_is_moved_aside_and_told_of() {
    let (_dir, path) = folder();
    let aside = beside(&path, "broken");
    for (why, held, expected) in [
        ("cut", &bytes(30)[..20], "17 letters, not 30"),
        ("empty", b"", "no number"),
        ("something else, and in place of the one before", b"\xff\xfe", "utf-8"),
    ] {
        fs::write(&path, held).unwrap();
        let (file, value) = open(&path).unwrap();
        assert_eq!(value, Value(0), "{why}");
        let broken = file.broken().expect(why);
        assert!(broken.why.contains(expected), "{why}: {}", broken.why);
        assert_eq!((&broken.moved_to, fs::read(&aside).unwrap()), (&aside, held.to_vec()), "{why}");
        assert!(!path.exists(), "{why}");
        file.write(&bytes(2)).unwrap();
        assert_eq!(fs::read(&aside).unwrap(), held, "{why}: it stays there");
    }
    fs::remove_file(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    fs::write(&path, "nothing").unwrap();
    let told = open(&path).unwrap_err().to_string();
    assert!(told.contains("cannot be moved aside") && told.contains("no number"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), b"nothing", "it is not destroyed");
}

#[test]
fn a_place_where_nothing_can_be_kept_is_refused() {
    let (dir, path) = folder();
    let told = |path: &Path| open(path).unwrap_err().to_string();
    let missing = told(&dir.path().join("none/state.json"));
    assert!(missing.contains("No such file") && missing.contains("create its directory"), "{missing}");
    assert!(told(dir.path()).contains("is not a regular file"));
    assert!(dir.path().exists(), "a directory is not moved aside");
    assert!(!beside(dir.path(), "lock").exists(), "and nothing is put beside it");
    fs::write(beside(dir.path(), "x"), "").unwrap();
    let below = told(&beside(dir.path(), "x").join("state.json"));
    fs::remove_file(beside(dir.path(), "x")).unwrap();
    assert!(below.contains("Not a directory"), "{below}");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(told(&path).contains("is not a regular file"), "and nobody waits for its other end");
}

#[test]
fn two_processes_do_not_write_one_file() {
    let (_dir, path) = folder();
    let (first, _) = open(&path).unwrap();
    first.write(&bytes(1)).unwrap();
    fs::write(beside(&path, "tmp"), "the first one is writing").unwrap();
    let told = open(&path).unwrap_err().to_string();
    assert!(beside(&path, "tmp").exists(), "it is left alone");
    assert!(told.contains("is in use by another process"), "{told}");
    // The one way: a successor, which gets it when it is left.
    let (next, value) = StateFile::open(look(&path, Start::Successor, None), read).unwrap();
    assert_eq!(value, Value(0), "it does not read what its predecessor may still write");
    assert!(next.write(&bytes(2)).unwrap_err().to_string().contains("another process has"), "not yet");
    first.write(&bytes(3)).unwrap();
    assert!(next.hold(&bytes(3), false).unwrap_err().to_string().contains("another process has"), "nor so");
    first.release();
    next.write(&bytes(4)).unwrap();
    assert!(first.write(&bytes(5)).unwrap_err().to_string().contains("another process has"));
    next.release();
    first.write(&bytes(6)).unwrap();
    assert!(next.write(&bytes(4)).is_err(), "the one that it was released to and came back has it");
    first.release();
    next.write(&bytes(4)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes(4));
    drop((first, next));
    assert_eq!(open(&path).unwrap().1, Value(4));
}

#[test]
fn what_cannot_be_written_is_told_and_changes_nothing() {
    let (dir, path) = folder();
    let (file, _) = open(&path).unwrap();
    file.write(&bytes(7)).unwrap();
    // A directory in place of the temporary file: that works for root, too.
    fs::create_dir(beside(&path, "tmp")).unwrap();
    let told = file.write(&bytes(8)).unwrap_err().to_string();
    assert!(told.contains("state.json: "), "{told}");
    assert_eq!(fs::read(&path).unwrap(), bytes(7));
    fs::remove_dir(beside(&path, "tmp")).unwrap();
    file.write(&bytes(9)).unwrap();
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(file.write(&bytes(10)).is_err(), "a directory has its name");
    assert!(!beside(&path, "tmp").exists(), "and nothing is left over");
}

#[test]
fn a_trap_in_place_of_the_temporary_file_is_not_written_to() {
    let (dir, path) = folder();
    let victim = dir.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    let (file, _) = open(&path).unwrap();
    symlink(&victim, beside(&path, "tmp")).unwrap();
    file.write(&bytes(5)).unwrap();
    assert_eq!((fs::read(&victim).unwrap(), fs::read(&path).unwrap()), (b"mine".to_vec(), bytes(5)));
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_link_stays_a_link() {
    let (dir, path) = folder();
    let true_place = dir.path().join("elsewhere.json");
    fs::write(&true_place, bytes(6)).unwrap();
    symlink(&true_place, &path).unwrap();
    let (file, value) = open(&path).unwrap();
    assert_eq!(value, Value(6));
    file.write(&bytes(7)).unwrap();
    assert_eq!(fs::read(&true_place).unwrap(), bytes(7));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn what_is_held_is_written_only_where_it_is_not_there() {
    let (_dir, path) = folder();
    let next = || StateFile::open(look(&path, Start::Successor, None), read).unwrap().0;
    next().hold(&bytes(0), true).unwrap();
    assert!(!path.exists(), "there is nothing to keep");
    next().hold(&bytes(1), false).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes(1));
    let file = || fs::metadata(&path).unwrap().ino();
    let before = file();
    let held = next();
    held.hold(&bytes(1), false).unwrap();
    assert_eq!(file(), before, "it is there already");
    assert!(open(&path).unwrap_err().to_string().contains("is in use by another process"));
    held.hold(&bytes(2), true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes(2), "what is there is of another time");
}

#[test]
fn the_lock_is_no_way_to_another_file() {
    let (dir, path) = folder();
    let other = dir.path().join("other");
    fs::write(&other, "").unwrap();
    symlink(&other, beside(&path, "lock")).unwrap();
    assert!(open(&path).is_err(), "it is not followed");
    fs::remove_file(beside(&path, "lock")).unwrap();
    if geteuid().is_root() {
        let owner = |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
        fs::hard_link(&other, beside(&path, "lock")).unwrap();
        drop(look(&path, Start::Alone, Some((Some(1), 1))));
        assert_eq!(owner(&other), (0, 0), "it has another name besides");
        fs::remove_file(beside(&path, "lock")).unwrap();
        drop(look(&path, Start::Alone, Some((Some(1), 1))));
        assert_eq!(owner(&beside(&path, "lock")), (1, 1));
    }
}
