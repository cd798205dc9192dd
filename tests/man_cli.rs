//! Holds man/l4lb.1 against the parser, both ways: commands, options, names of values, defaults.

use std::collections::BTreeMap;

/// An option as a manual describes it.
#[derive(Debug, Default, PartialEq)]
struct Described {
    short: Option<char>,
    value: Option<String>,
    default: Option<String>,
}

/// Long options by name, by command; the options without a command are under "".
type Page = BTreeMap<String, BTreeMap<String, Described>>;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/man/l4lb.1");
    std::fs::read_to_string(path).expect(path)
}

fn parsed() -> Page {
    let mut top = l4lb::cli::command();
    top.build();
    let mut all = BTreeMap::from([(String::new(), options(&top))]);
    all.extend(top.get_subcommands().map(|command| (command.get_name().to_owned(), options(command))));
    all
}

fn options(command: &clap::Command) -> BTreeMap<String, Described> {
    let described = |arg: &clap::Arg| {
        let takes_value = arg.get_action().takes_values();
        let first = |values: Option<&[clap::builder::Str]>| Some(values?.first()?.to_string());
        Described {
            short: arg.get_short(),
            value: first(arg.get_value_names()).filter(|_| takes_value),
            default: arg
                .get_default_values()
                .first()
                .map(|it| it.to_string_lossy().into_owned())
                .filter(|_| takes_value),
        }
    };
    command.get_arguments().filter_map(|arg| Some((arg.get_long()?.to_owned(), described(arg)))).collect()
}

/// Reads OPTIONS and COMMANDS of the page.
fn written(page: &str) -> Page {
    let mut all = Page::new();
    let (mut section, mut command, mut option) = ("", String::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [".Sh", name @ ..] => {
                section = name.first().copied().unwrap_or_default();
                (command, option) = (String::new(), None);
            }
            _ if !matches!(section, "OPTIONS" | "COMMANDS") => {}
            [".Ss", name] => {
                (command, option) = ((*name).to_owned(), None);
                all.entry(command.clone()).or_default();
            }
            [".It", words @ ..] => {
                // "Fl c , Fl Fl config Ar FILE" or "Fl Fl backend Ar HOST : Ns Ar PORT"
                let at = words.windows(2).position(|pair| pair == ["Fl", "Fl"]).expect(line);
                let short = if words[..at].is_empty() { None } else { words[1].chars().next() };
                let value: String =
                    words[at + 3..].iter().filter(|word| !matches!(**word, "Ar" | "Ns")).copied().collect();
                let value = Some(value).filter(|value| !value.is_empty());
                let name = words[at + 2].to_owned();
                option = Some(name.clone());
                let others = all.entry(command.clone()).or_default();
                let twice = others.insert(name, Described { short, value, default: None });
                assert_eq!(twice, None, "{command}: described twice: {line}");
            }
            [.., "The", "default", "is"] => {
                let next = lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
                let [".Cm", default, ..] = next.as_slice() else { panic!("after {line:?}: {next:?}") };
                let option = option.as_ref().expect("a default belongs to an option");
                all.get_mut(&command).unwrap().get_mut(option).unwrap().default = Some((*default).to_owned());
            }
            _ => {}
        }
    }
    all
}

#[test]
fn the_page_describes_what_the_parser_takes() {
    let (parsed, written) = (parsed(), written(&page()));
    assert!(parsed.len() > 1 && parsed.values().all(|options| !options.is_empty()), "nothing to compare: {parsed:?}");
    assert_eq!(written, parsed, "left: man/l4lb.1, right: the parser");
}

#[test]
fn the_page_mentions_no_other_option() {
    let known = parsed();
    for line in page().lines().filter(|line| !line.starts_with(".\\\"")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let in_macros = words.windows(3).filter(|three| three[..2] == ["Fl", "Fl"]).map(|three| three[2]);
        let in_examples = words.iter().filter_map(|word| word.strip_prefix("--"));
        for option in in_macros.chain(in_examples) {
            assert!(known.values().any(|options| options.contains_key(option)), "--{option} in: {line}");
        }
    }
}

#[test]
fn the_synopsis_names_every_command_and_option() {
    let page = page();
    let synopsis = page.split(".Sh ").find(|section| section.starts_with("SYNOPSIS")).expect("a synopsis");
    for (command, options) in parsed() {
        let shown: Vec<&str> = synopsis.split("\n.Nm\n").filter(|form| named(form) == command).collect();
        assert!(!shown.is_empty(), "no form for {command:?}");
        for (name, option) in options.iter().filter(|(name, _)| command.is_empty() || *name != "help") {
            let long = format!("Fl Fl {name}");
            let short = option.short.map(|short| format!("Fl {short} "));
            let here = |form: &&str| {
                form.split([' ', '\n']).collect::<Vec<_>>().join(" ").contains(&long)
                    || short.as_ref().is_some_and(|short| form.contains(short.as_str()))
            };
            assert!(shown.iter().any(here), "{command:?}: --{name} is missing");
        }
    }
}

/// The command at the beginning of a form of the synopsis: ".Cm check", or "" when there is none.
fn named(form: &str) -> &str {
    form.lines().next().and_then(|line| line.strip_prefix(".Cm ")).unwrap_or_default()
}

#[test]
fn the_page_is_well_formed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/man/l4lb.1");
    let checks: [(&str, &[&str]); 2] =
        [("man", &["--warnings", "-E", "UTF-8", "-l", path]), ("mandoc", &["-T", "lint", "-W", "error", path])];
    for (program, args) in checks {
        let output = std::process::Command::new(program).args(args).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install man-db and mandoc"));
        // mandoc tells what it finds on standard output, which for man is the page itself.
        let told = String::from_utf8_lossy(if program == "man" { &output.stderr } else { &output.stdout });
        assert!(output.status.success() && told.is_empty(), "{program} {args:?}: {told}");
    }
}
