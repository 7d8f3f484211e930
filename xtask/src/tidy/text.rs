//! Rules about single files: size, opening, words that must not be there.

use super::Fault;

/// A file of code with more lines than this is more than one idea. Tests at its end do not count.
const MAX_LINES: usize = 1_000;

/// This file names what is forbidden; the lock file and the licence are not ours.
const EXEMPT: [&str; 3] = ["xtask/src/tidy/text.rs", "Cargo.lock", "LICENSE"];

/// What must not be in any file, and why.
const FORBIDDEN: [(&str, &str); 10] = [
    ("/root/", "a path of one machine"),
    ("/home/", "a path of one machine"),
    ("/work/", "a path of one machine"),
    ("static.rust-lang.org", "a host name of a registry: tools know where to download from"),
    ("index.crates.io", "a host name of a registry: tools know where to download from"),
    ("static.crates.io", "a host name of a registry: tools know where to download from"),
    ("registry.npmjs.org", "a host name of a registry: tools know where to download from"),
    ("pypi.org", "a host name of a registry: tools know where to download from"),
    ("<<<<<<< ", "an unresolved conflict"),
    (">>>>>>> ", "an unresolved conflict"),
];

/// What must not be in code, and why.
const FORBIDDEN_IN_CODE: [(&str, &str); 7] = [
    ("todo!(", "unfinished"),
    ("unimplemented!(", "unfinished"),
    ("dbg!(", "left from debugging"),
    ("FIXME", "unfinished"),
    ("XXX", "unfinished"),
    ("HACK", "unfinished"),
    ("#[ignore]", "a test that is left out says why: #[ignore = \"...\"]"),
];

/// Checks one file.
pub(super) fn check(file: &str, content: &str) -> Vec<Fault> {
    if EXEMPT.contains(&file) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut fault = |line: usize, text: String| faults.push(Fault { file: file.to_owned(), line, text });
    let is_code = file.ends_with(".rs");
    let words = FORBIDDEN.iter().chain(if is_code { FORBIDDEN_IN_CODE.as_slice() } else { &[] });
    let words = words.collect::<Vec<_>>();
    for (number, line) in content.lines().enumerate() {
        for (word, reason) in words.iter().filter(|(word, _)| line.contains(word)) {
            fault(number + 1, format!("{word:?} must not be here: {reason}"));
        }
        if line.ends_with([' ', '\t']) {
            fault(number + 1, "white space at the end of the line".to_owned());
        }
    }
    if !content.is_empty() && !content.ends_with('\n') {
        fault(0, "the last line has no end".to_owned());
    }
    if is_code {
        if !is_tests(file) && !content.starts_with("//!") {
            fault(1, "begin the file with `//!`: what it is for, where it stands, what it does not do".to_owned());
        }
        let lines = lines_without_tests(file, content);
        if lines > MAX_LINES {
            fault(0, format!("{lines} lines without tests, more than {MAX_LINES}; split it"));
        }
    }
    faults
}

/// Whether a file holds the unit tests of the file beside it.
fn is_tests(file: &str) -> bool {
    file.ends_with("/tests.rs")
}

fn lines_without_tests(file: &str, content: &str) -> usize {
    if is_tests(file) {
        return 0;
    }
    content.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str, content: &str) -> Vec<String> {
        check(file, content).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_clean_file_has_no_faults() {
        assert_eq!(texts("a/src/lib.rs", "//! What it is for.\n"), Vec::<String>::new());
        assert_eq!(texts("README.md", "# Text\n"), Vec::<String>::new());
    }

    #[test]
    fn a_path_of_a_machine_is_named_with_its_line() {
        let faults = texts("README.md", "# Text\nsee /root/x\n");
        assert_eq!(faults, ["README.md:2: \"/root/\" must not be here: a path of one machine"]);
    }

    #[test]
    fn code_opens_with_its_purpose_and_has_no_unfinished_marks() {
        assert_eq!(texts("a.rs", "fn a() { todo!() }\n").len(), 2);
    }

    #[test]
    fn tests_at_the_end_do_not_count_as_lines() {
        let long = format!("//! x\n{}#[cfg(test)]\n{}", "\n".repeat(900), "\n".repeat(900));
        assert_eq!(texts("a.rs", &long), Vec::<String>::new());
        let long = format!("//! x\n{}", "\n".repeat(1_000));
        assert_eq!(texts("a.rs", &long), ["a.rs: 1001 lines without tests, more than 1000; split it"]);
    }
}
