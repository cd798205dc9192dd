//! Each broken configuration in tests/broken/NAME.toml is told exactly as tests/broken/NAME.expected says: every error,
//! in one run, with line and column.
//!
//! `UPDATE_EXPECTED=1 cargo test --test config_errors` writes the expected files anew; read the difference before
//! it is committed.

use std::fs;
use std::path::{Path, PathBuf};

use l4lb::config;

fn broken() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let entries = fs::read_dir(&folder).expect("tests/broken is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    files
}

#[test]
fn every_error_of_a_broken_file_is_told_with_line_and_column() {
    let files = broken();
    assert!(files.len() >= 10, "only {} broken files: is it the right folder?", files.len());
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().expect("it has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("it can be read");
        let told = match config::parse(&text, &name) {
            Ok(_) => "no error".to_owned(),
            Err(errors) => errors.to_string(),
        };
        let expected = file.with_extension("expected");
        if update {
            fs::write(&expected, format!("{told}\n")).expect("it can be written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if expected.trim_end() != told || told == "no error" {
            wrong.push(format!("{name}\n-- expected\n{expected}-- told\n{told}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
