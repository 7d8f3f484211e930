//! The tables of behaviours and of attacks in `docs/` are complete, and name tests that exist.

use std::collections::BTreeSet;

use super::Fault;

/// A table of claims: in its first column a letter and a number, in its last one the tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims {
    /// The document.
    pub(super) file: &'static str,
    letter: char,
    rows: usize,
}

/// All such tables.
pub(super) const TABLES: [Claims; 2] = [
    Claims { file: "docs/BEHAVIOURS.md", letter: 'B', rows: 53 },
    Claims { file: "docs/SECURITY.md", letter: 'A', rows: 60 },
];

/// The names of the tests in a file of code.
pub(super) fn tests(content: &str) -> impl Iterator<Item = String> {
    let mut marked = false;
    content.lines().filter_map(move |line| {
        let line = line.trim_start();
        let name = line.split_once("fn ").map(|(_, rest)| rest.split('(').next().unwrap_or_default());
        match name {
            Some(name) if std::mem::take(&mut marked) => Some(name.to_owned()),
            _ => {
                marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                None
            }
        }
    })
}

/// Checks a table against all tests of the tree.
pub(super) fn check(table: Claims, content: &str, tests: &BTreeSet<String>) -> Vec<Fault> {
    let Claims { file, letter, rows } = table;
    let mut faults = Vec::new();
    let mut fault = |line: usize, text: String| faults.push(Fault { file: file.to_owned(), line, text });
    let mut next = 1;
    let begins = format!("| {letter}");
    for (number, line) in (1..).zip(content.lines()).filter(|(_, line)| line.starts_with(&begins)) {
        let mut cells = line.trim_end_matches([' ', '|']).split('|').map(str::trim).skip(1);
        let (name, held) = (cells.next().unwrap_or_default(), cells.last().unwrap_or_default());
        if name != format!("{letter}{next}") {
            fault(number, format!("row {name} is where {letter}{next} belongs"));
        }
        next += 1;
        let named: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        for test in named.iter().filter(|test| !tests.contains(**test)) {
            fault(number, format!("there is no test {test:?}"));
        }
        let excused = ["no meaning here: ", "not yet: "].iter().any(|excuse| held.starts_with(excuse));
        if named.is_empty() && !excused {
            fault(
                number,
                format!("row {name} names no test and says neither \"no meaning here: ...\" nor \"not yet: ...\""),
            );
        }
    }
    if next != rows + 1 {
        fault(0, format!("the table has {} rows instead of {rows}", next - 1));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_their_mark() {
        let code =
            "#[test]\nfn a_claim() {}\nfn helper() {}\n    #[tokio::test(flavor = \"x\")]\n    async fn another() {\n";
        assert_eq!(tests(code).collect::<Vec<_>>(), ["a_claim", "another"]);
    }

    #[test]
    fn a_test_that_does_not_exist_and_a_row_without_reason_are_faults() {
        let known = BTreeSet::from(["a_claim".to_owned()]);
        let table = Claims { file: "docs/CLAIMS.md", letter: 'C', rows: 9 };
        let rows =
            |held: &str| -> String { (1..=table.rows).map(|row| format!("| C{row} | what | {held} |\n")).collect() };
        let faults = |content: &str| check(table, content, &known).len();
        assert_eq!(faults(&rows("`a_claim`")), 0);
        assert_eq!(faults(&rows("not yet: it is new")), 0);
        assert_eq!(faults(&rows("`another`")), table.rows);
        assert_eq!(faults(&rows("perhaps")), table.rows);
        assert_eq!(faults(&rows("`a_claim`").replace("| C7 |", "| C8 |")), 1);
        assert_eq!(faults(""), 1);
    }
}
