//! man/l4lb.toml.5 lists the keys that work, each with what it takes and its default, and no others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use l4lb::config;
use l4lb::config::keys::SECTIONS;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/l4lb.toml.5");
    fs::read_to_string(path).expect("the page is there")
}

/// Section and key, and the line below the key: as the page has them.
fn on_page(page: &str) -> BTreeMap<(String, String), String> {
    let mut keys = BTreeMap::new();
    let mut section = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix(".Ss ") {
            section = title.trim_end_matches(" tables").trim_end_matches(" table").to_owned();
        } else if let Some(key) = line.strip_prefix(".It Ic ") {
            let told = lines.next().unwrap_or_default().to_owned();
            let twice = keys.insert((section.clone(), key.to_owned()), told);
            assert_eq!(twice, None, "{key} is twice in {section}");
        }
    }
    keys
}

#[test]
fn the_page_and_the_table_of_keys_agree() {
    let mut known = BTreeMap::new();
    for section in SECTIONS {
        for key in section.now() {
            let told = format!("{}.", key.told());
            known.insert((section.title.to_owned(), key.name.to_owned()), told);
        }
    }
    let page = on_page(&page());
    assert!(page.len() > 20, "only {} keys on the page: is it read right?", page.len());
    for (key, told) in &known {
        assert_eq!(page.get(key), Some(told), "{key:?} as the page has it, and as it is");
    }
    for key in page.keys() {
        assert!(known.contains_key(key), "{key:?} is on the page, but not supported");
    }
}

#[test]
fn the_examples_of_the_page_are_configurations() {
    let page = page();
    let examples = page.split(".Bd -literal").skip(1).filter_map(|rest| rest.split(".Ed").next());
    let read = |block: &str| {
        let (_, example) = block.split_once('\n').expect("it has lines");
        config::parse(example, "the example").unwrap_or_else(|errors| panic!("{errors}"))
    };
    let configs: Vec<_> = examples.map(read).collect();
    assert_eq!(configs.len(), 2);
    assert!(configs[0].pools[0].backends[3].backup, "it is the example that is meant");
    assert_eq!(configs[1].listeners[0].routes.len(), 1, "it is the example that is meant");
}
