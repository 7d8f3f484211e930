//! The table of behaviours in `docs/BEHAVIOURS.md` is complete, and names tests that exist.

use std::collections::BTreeSet;

use super::Fault;

/// The document.
pub(super) const FILE: &str = "docs/BEHAVIOURS.md";
/// How many behaviours there are.
const BEHAVIOURS: usize = 53;

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

/// Checks the table against all tests of the tree.
pub(super) fn check(content: &str, tests: &BTreeSet<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, text: String| faults.push(Fault { file: FILE.to_owned(), line, text });
    let mut next = 1;
    for (number, line) in (1..).zip(content.lines()).filter(|(_, line)| line.starts_with("| B")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (name, held) = (cells.next().unwrap_or_default(), cells.nth(1).unwrap_or_default());
        if name != format!("B{next}") {
            fault(number, format!("row {name} is where B{next} belongs"));
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
    if next != BEHAVIOURS + 1 {
        fault(0, format!("the table has {} rows instead of {BEHAVIOURS}", next - 1));
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
        let rows =
            |held: &str| -> String { (1..=BEHAVIOURS).map(|row| format!("| B{row} | what | {held} |\n")).collect() };
        assert_eq!(check(&rows("`a_claim`"), &known), []);
        assert_eq!(check(&rows("not yet: it is new"), &known), []);
        assert_eq!(check(&rows("`another`"), &known).len(), BEHAVIOURS);
        assert_eq!(check(&rows("perhaps"), &known).len(), BEHAVIOURS);
        let missing = rows("`a_claim`").replace("| B7 |", "| B8 |");
        assert_eq!(check(&missing, &known).len(), 1);
        assert_eq!(check("", &known).len(), 1);
    }
}
