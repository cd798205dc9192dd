//! The part of the reader that knows secrets, which are in files of their own.

use std::io;
use std::path::Path;

use super::super::error::{Fault, Quoted};
use super::{Noted, Open, Reader};
use crate::base::secret::Secret;

/// How files that the configuration names are read.
pub(in crate::config) type Files = fn(&Path) -> io::Result<Vec<u8>>;

/// A token is one line; a file that is longer than this is another one than was meant.
const LONGEST: usize = 4096;

impl Reader<'_> {
    /// The path of a file, and the secret in it: its first line, which is its only one.
    pub(in crate::config) fn secret(&mut self, open: &Open<'_>, key: &str) -> Option<(Noted<String>, Secret)> {
        let path = self.text(open, key)?;
        let secret = match (self.files)(Path::new(&path.value)) {
            Ok(bytes) => secret(&bytes, &path.value),
            Err(why) => Err(Fault::NoFile { found: Quoted::new(&path.value), why: why.to_string() }),
        };
        match secret {
            Ok(secret) => Some((path, secret)),
            Err(fault) => {
                self.report(path.at, path.place, fault);
                None
            }
        }
    }
}

/// What `bytes` are without the white space around them. It stands in a header field, so there is none within.
fn secret(bytes: &[u8], path: &str) -> Result<Secret, Fault> {
    let found = || Quoted::new(path);
    let text = bytes.trim_ascii();
    if text.len() > LONGEST || !text.iter().all(u8::is_ascii_graphic) {
        return Err(Fault::BadSecret { found: found() });
    }
    Secret::new(text).ok_or_else(|| Fault::NoSecret { found: found() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_of_visible_characters() {
        let long = "a".repeat(LONGEST + 1);
        let rows = [
            ("a line", "s3cr3t+/=\n", "good"),
            ("no line end", "s3cr3t", "good"),
            ("a line end of another system", "s3cr3t\r\n", "good"),
            ("nothing", "", "no token"),
            ("an empty line", "\n", "no token"),
            ("two lines", "one\ntwo\n", "not one line"),
            ("a blank", "one two", "not one line"),
            ("not ASCII", "gr\u{fc}n", "not one line"),
            ("another file than was meant", &long, "not one line"),
        ];
        for (why, text, expected) in rows {
            let told = secret(text.as_bytes(), "t").err().map_or("good".to_owned(), |fault| fault.to_string());
            assert!(told.contains(expected), "{why}: {told}");
        }
    }
}
