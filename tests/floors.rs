//! Holds the house to its map: `src/lib.rs` gives each room a floor, and a room imports only from floors below its own.
//!
//! Tests inside a room are held to it too: what they need to see is below them, or the room is cut wrongly.
//! `main.rs` stands above all floors. What is read is the text, without comments and literals, so that an import counts
//! wherever it stands: at the top, in a group, or as a path in the middle of a function.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is not read in a sitting.
const LINES: usize = 900;

/// Room to floor.
type Map = BTreeMap<String, u32>;

#[test]
fn rooms_import_only_from_floors_below() {
    let map = map_of(&fs::read_to_string(src().join("lib.rs")).expect("the map is there"));
    assert!(map.len() > 10 && map.values().min() == Some(&0), "this is no map: {map:?}");
    let mut wrong = strangers(&map);
    let mut imports = 0;
    let mut files = 0;
    for file in rust_files(&src()) {
        let inside = file.strip_prefix(src()).expect("it is below src").to_path_buf();
        if inside == Path::new("lib.rs") {
            continue;
        }
        files += 1;
        let code = bare(&fs::read_to_string(&file).expect("a readable file"));
        let found = if inside == Path::new("main.rs") { named_after("l4lb::", &code) } else { rooms_used(&code) };
        imports += found.len();
        wrong.extend(faults(&map, &inside, &found));
        wrong.extend(climbs(&inside, &code));
    }
    assert!(files > 20 && imports > 50, "only {files} files with {imports} imports were found: the search is broken");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_room_is_empty() {
    let map = map_of(&fs::read_to_string(src().join("lib.rs")).expect("the map is there"));
    let mut empty = Vec::new();
    for room in map.keys() {
        let files = files_of(room);
        let code: usize =
            files.iter().map(|file| bare(&fs::read_to_string(file).expect("readable")).trim().len()).sum();
        if code == 0 {
            empty.push(room);
        }
    }
    assert!(empty.is_empty(), "there is nothing in {empty:?}");
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    let mut wrong = Vec::new();
    let files = ["src", "tests", "benches", "fuzz", "examples"].into_iter().map(|dir| root.join(dir));
    for file in files.filter(|dir| dir.exists()).flat_map(|dir| rust_files(&dir)) {
        let code = bare(&fs::read_to_string(&file).expect("readable"));
        let found = words(&code).any(|word| word == "unsafe" || word == "unsafe_code" && code.contains("allow("));
        let inside = file.strip_prefix(root).expect("it is below the root");
        let allowed = inside.starts_with("src/sys") || inside.starts_with("src/sys.rs");
        seen += usize::from(found && allowed);
        if found && !allowed {
            wrong.push(inside.display().to_string());
        }
    }
    assert!(seen > 0, "sys holds none either: the search is broken");
    assert!(wrong.is_empty(), "only src/sys may hold unsafe code; so do {wrong:?}");
}

#[test]
fn a_file_can_be_read_in_a_sitting() {
    let files = rust_files(&src());
    assert!(files.len() > 20, "only {} files were found: the search is broken", files.len());
    let long = files.iter().map(|file| (fs::read_to_string(file).expect("readable").lines().count(), file));
    let long: Vec<_> = long.filter(|(lines, _)| *lines > LINES).collect();
    assert!(long.is_empty(), "longer than {LINES} lines: {long:?}; split them by what they are for");
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All Rust files below `dir`, in order.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn files_of(room: &str) -> Vec<PathBuf> {
    let (file, folder) = (src().join(format!("{room}.rs")), src().join(room));
    let mut files = if folder.is_dir() { rust_files(&folder) } else { Vec::new() };
    files.extend(file.is_file().then_some(file));
    files
}

/// Reads `// floor N` and the `mod` lines under it.
fn map_of(lib: &str) -> Map {
    let mut floor = None;
    let mut map = Map::new();
    for line in lib.lines() {
        if let Some(rest) = line.trim().strip_prefix("// floor ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            floor = Some(digits.parse().unwrap_or_else(|_| panic!("no number in {line:?}")));
        }
        let declared = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
        if let Some(name) = declared.and_then(|rest| rest.split(';').next()) {
            let floor = floor.unwrap_or_else(|| panic!("{name} stands on no floor"));
            map.insert(name.trim().to_owned(), floor);
        }
    }
    map
}

/// What lies in src and is on no floor, and the other way round.
fn strangers(map: &Map) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(src()).expect("src is there") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if name != "lib" && name != "main" && !map.contains_key(&name) {
            wrong.push(format!("src/{name} is on no floor of src/lib.rs"));
        }
    }
    let missing = map.keys().filter(|room| files_of(room).is_empty());
    wrong.extend(missing.map(|room| format!("src/lib.rs names {room}, and there is nothing in it")));
    wrong
}

/// What `inside` (a path below src) may not use of what it uses.
fn faults(map: &Map, inside: &Path, used: &[String]) -> Vec<String> {
    let own = inside.components().next().expect("a room").as_os_str().to_string_lossy();
    let own = own.trim_end_matches(".rs");
    let floor = if own == "main" { u32::MAX } else { map.get(own).copied().unwrap_or(0) };
    let fault = |room: &String| match map.get(room) {
        _ if room == own => None,
        None => Some(format!("src/{}: crate::{room} is no room", inside.display())),
        Some(other) if *other < floor => None,
        Some(other) => Some(format!("src/{}: {own} (floor {floor}) uses {room} (floor {other})", inside.display())),
    };
    used.iter().filter_map(fault).collect()
}

/// The rooms that a file names after `crate::`, also in groups.
fn rooms_used(code: &str) -> Vec<String> {
    named_after("crate::", code)
}

fn named_after(prefix: &str, code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue; // $crate, or the end of a longer name
        }
        let rest = code[at + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(heads(group)),
            None => rooms.extend(words(rest).next().map(str::to_owned)),
        }
    }
    rooms
}

/// The first name of each branch of a `use` group, whose opening brace is gone already.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut at_head) = (1, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return heads,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            c if at_head && (c.is_alphabetic() || c == '_') => {
                heads.extend(words(&group[i..]).next().map(str::to_owned));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// Chains of `super::` that leave the room: those would be imports that nobody sees.
fn climbs(inside: &Path, code: &str) -> Vec<String> {
    let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let is_mod = parts.last().is_some_and(|last| last == "mod.rs");
    // how many modules deep the file is: src/room/mod.rs is one deep, src/room/x.rs two
    let depth = parts.len() - usize::from(is_mod);
    let mut wrong = Vec::new();
    let mut braces: Vec<bool> = Vec::new(); // whether each open brace is that of a module
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let c = rest.chars().next().expect("not at the end");
        let fresh = at == 0 || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if c == '{' {
            let head = code[..at].rsplit(['{', '}', ';']).next().unwrap_or("");
            braces.push(words(head).any(|word| word == "mod"));
        } else if c == '}' {
            braces.pop();
        } else if fresh && rest.starts_with("super::") {
            let steps = rest.split("super::").take_while(|between| between.trim().is_empty()).count();
            let modules = depth + braces.iter().filter(|module| **module).count();
            if steps >= modules {
                let line = code[..at].matches('\n').count() + 1;
                wrong.push(format!("src/{}:{line}: leaves the room by super; write `use crate::`", inside.display()));
            }
            at += "super::".len() * steps;
            continue;
        }
        at += c.len_utf8();
    }
    wrong
}

/// Identifiers and keywords, in order.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The code without comments and without what is in string and character literals; lines stay lines.
fn bare(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let name_before = bare.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            quoted(rest)
        } else if !name_before && (rest.starts_with("r\"") || rest.starts_with("r#") || rest.starts_with("br")) {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skip == 0 {
            bare.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            bare.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            bare.push(' ');
            rest = &rest[skip..];
        }
    }
    bare
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string at the start of `text`; 0 when there is none (`r#mod` is a name).
fn raw_string(text: &str) -> usize {
    let after = text.trim_start_matches('b');
    let Some(after) = after.strip_prefix('r') else { return 0 };
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let open = text.len() - after.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    text[open..].find(&close).map_or(text.len(), |end| open + end + close.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |end| end + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(i, _)| i + 1),
        None => 0,
    }
}

#[test]
fn an_import_is_seen_wherever_it_stands() {
    let cases: [(&str, &str, &[&str]); 12] = [
        ("the usual line", "use crate::base::ids::LinkId;", &["base"]),
        ("a group", "use crate::{base::ids::{A, B}, link, sys::{self, x}};", &["base", "link", "sys"]),
        ("a group over lines", "use crate::{\n    base::ids,\n    // worker::x,\n    stats,\n};", &["base", "stats"]),
        ("in the middle of code", "let x = crate::worker::y(crate::app::z());", &["worker", "app"]),
        ("with visibility", "pub(crate) use crate::relay::Relay;", &["relay"]),
        ("in a type, after a bracket", "fn f(a: &[crate::link::Link<'a>]) -> u8 {}", &["link"]),
        ("not in a comment", "// crate::app\n/* crate::app /* crate::app */ crate::app */ /// crate::app", &[]),
        ("not in a string", "let s = \"crate::app \\\" crate::app\"; let t = r#\"crate::app \" \"#;", &[]),
        (
            "a quote character opens no string",
            "let c = '\"'; use crate::app; let d = '\\''; crate::base",
            &["app", "base"],
        ),
        ("a lifetime is no character", "fn f<'a>(x: &'a str) { crate::app::g('x') }", &["app"]),
        ("not pub(crate)", "pub(crate) fn f() {}", &[]),
        ("not $crate", "$crate::thing", &[]),
    ];
    for (why, code, expected) in cases {
        assert_eq!(rooms_used(&bare(code)), expected, "{why}: {code}");
    }
}

#[test]
fn an_import_from_above_or_beside_is_a_fault() {
    let map =
        map_of("// floor 2: x\npub mod up;\npub mod beside;\n\n// floor 1: y\npub mod mid;\n// floor 0\nmod low;\n");
    assert_eq!(map.len(), 4);
    let cases = [
        ("down one", "up/mod.rs", "mid", true),
        ("down two", "up/deep/x.rs", "low", true),
        ("its own", "mid/x.rs", "mid", true),
        ("a room in one file", "mid.rs", "low", true),
        ("up", "mid/x.rs", "up", false),
        ("sideways", "up/x.rs", "beside", false),
        ("from the ground", "low/mod.rs", "mid", false),
        ("no such room", "up/x.rs", "cellar", false),
        ("main stands above all", "main.rs", "up", true),
    ];
    for (why, inside, used, fine) in cases {
        assert_eq!(faults(&map, Path::new(inside), &[used.to_owned()]).is_empty(), fine, "{why}");
    }
}

#[test]
fn a_room_is_not_left_by_super() {
    let cases = [
        ("the parent inside the room", "room/x.rs", "use super::y;", true),
        ("out of the room", "room/x.rs", "use super::super::other;", false),
        ("out of the room's own file", "room/mod.rs", "use super::other;", false),
        ("out of a room of one file", "room.rs", "use super::other;", false),
        ("a test module's parent", "room/mod.rs", "mod tests { use super::*; }", true),
        ("a test module's grandparent", "room/mod.rs", "mod tests { use super::super::other; }", false),
        ("after a module has closed", "room/mod.rs", "mod tests { fn f() { {} } } use super::other;", false),
        ("deep enough", "room/deep/x.rs", "use super::super::y;", true),
        ("too high from there", "room/deep/x.rs", "use super::super::super::other;", false),
    ];
    for (why, inside, code, fine) in cases {
        assert_eq!(climbs(Path::new(inside), &bare(code)).is_empty(), fine, "{why}");
    }
}
