//! The command line: what it means, and that no bytes whatever break it.

use boot::cmdline::{CommandLine, MAX_LEN};
use boot::problem::{Problem, Structure};
use proptest::prelude::*;

fn read(bytes: &[u8]) -> (CommandLine, Vec<Problem>) {
    let mut problems = Vec::new();
    let line = CommandLine::read(bytes, |problem| problems.push(problem));
    (line, problems)
}

fn line(text: &str) -> CommandLine {
    let (line, problems) = read(text.as_bytes());
    assert_eq!(problems, []);
    line
}

#[test]
fn the_last_value_of_a_key_wins() {
    let line = line("log=info console=serial  log=trace");
    assert_eq!(line.get("log"), Some("trace"));
    assert_eq!(line.values("log").collect::<Vec<_>>(), ["info", "trace"]);
    assert_eq!(line.get("pv"), None);
    assert_eq!(line.get("lo"), None);
}

#[test]
fn quotes_keep_white_space_together() {
    for text in [r#"a="x y" b=1"#, r#""a=x y" b=1"#, "\ta=\"x y\"\n b=1 "] {
        let line = line(text);
        assert_eq!(line.get("a"), Some("x y"), "{text}");
        assert_eq!(line.get("b"), Some("1"), "{text}");
    }
    assert_eq!(line(r#"a="" b="#).get("a"), Some(""));
    assert_eq!(line(r#"a="" b="#).get("b"), Some(""));
    assert_eq!(line(r#"a=x"y z"w"#).get("a"), Some(r#"x"y z"w"#));
}

#[test]
fn a_quotation_without_end_reaches_to_the_end_of_the_line() {
    assert_eq!(line(r#"log=info a="x y z=1"#).get("a"), Some("x y z=1"));
    assert_eq!(line("\"").words().collect::<Vec<_>>(), [("", None)]);
}

#[test]
fn a_flag_is_a_bare_word_or_says_yes() {
    for (text, set) in [
        ("quiet", true),
        ("quiet=1", true),
        ("quiet=on", true),
        ("quiet=0", false),
        ("quiet quiet=off", false),
        ("quiet=no quiet", true),
        ("quite", false),
        ("", false),
    ] {
        assert_eq!(line(text).flag("quiet"), set, "{text}");
    }
    assert_eq!(line("quiet").get("quiet"), None);
}

#[test]
fn a_value_may_hold_an_equals_sign() {
    assert_eq!(line("app.query=a=b").get("app.query"), Some("a=b"));
}

#[test]
fn the_line_ends_at_the_first_nul() {
    assert_eq!(line("log=info\0log=trace").get("log"), Some("info"));
}

#[test]
fn what_is_no_text_becomes_a_question_mark_and_is_told() {
    let (line, problems) = read(b"a=\xff\x1b[2J b=\xc3\xa9");
    assert_eq!(line.as_str(), "a=??[2J b=\u{e9}");
    assert_eq!(problems, [Problem::NotText { replaced: 2 }]);
}

#[test]
fn a_line_too_long_is_cut_and_told() {
    let (line, problems) = read(&[b'x'; MAX_LEN + 1]);
    assert_eq!(line.as_str().len(), MAX_LEN);
    let structure = Structure::CommandLine;
    assert_eq!(problems, [Problem::TooMany { structure, found: MAX_LEN as u64 + 1, limit: MAX_LEN as u64 }]);
    let (line, _) = read("é".repeat(MAX_LEN).as_bytes());
    assert_eq!(line.as_str().chars().count(), MAX_LEN / 2);
}

proptest! {
    #[test]
    fn any_bytes_make_a_line_without_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let (line, _) = read(&bytes);
        prop_assert!(!line.as_str().chars().any(char::is_control));
        let words: Vec<_> = line.words().collect();
        prop_assert!(words.len() <= line.as_str().len());
        for (key, value) in words {
            prop_assert!(line.as_str().contains(key));
            prop_assert!(value.is_none_or(|value| line.as_str().contains(value)));
            let _ = (line.flag(key), line.get(key));
        }
    }

    #[test]
    fn what_was_written_is_read(pairs in prop::collection::vec(("[a-z][a-z.]{0,8}", "[a-z0-9 =/.-]{0,12}"), 0..20)) {
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let line = line(&text.join(" "));
        let words: Vec<_> = line.words().map(|(key, value)| (key.to_owned(), value.unwrap().to_owned())).collect();
        prop_assert_eq!(words, pairs);
    }
}
