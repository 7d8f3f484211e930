//! The table of invariants in `docs/SIMULATION.md` is complete, and names checks and tests that exist.

use std::collections::BTreeSet;

use super::Fault;

/// The document.
pub(super) const FILE: &str = "docs/SIMULATION.md";
/// How many invariants there are.
const INVARIANTS: usize = 46;

/// What a claim may be called in a file of code: functions, and names that are given to an invariant as a text.
pub(super) fn names(content: &str) -> impl Iterator<Item = String> {
    let functions = content.split("fn ").skip(1).map(|rest| rest.split(['(', '<']).next().unwrap_or_default());
    let texts = content.split('"').skip(1);
    functions.chain(texts).filter(|name| is_claim(name)).map(str::to_owned)
}

/// Several words in small letters.
fn is_claim(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Checks the table against all names of the tree.
pub(super) fn check(content: &str, known: &BTreeSet<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, text: String| faults.push(Fault { file: FILE.to_owned(), line, text });
    let mut next = 1;
    for (number, line) in (1..).zip(content.lines()).filter(|(_, line)| line.starts_with("| I")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (name, claim) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        if name != format!("I{next}") {
            fault(number, format!("row {name} is where I{next} belongs"));
        }
        next += 1;
        let named: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|name| is_claim(name)).collect();
        for name in named.iter().filter(|name| !known.contains(**name)) {
            fault(number, format!("there is no check and no test {name:?}"));
        }
        let excused = ["no meaning here: ", "not yet: "].iter().any(|excuse| claim.starts_with(excuse));
        if named.is_empty() && !excused {
            let text = "names no check and says neither \"no meaning here: ...\" nor \"not yet: ...\"";
            fault(number, format!("row {name} {text}"));
        }
    }
    if next != INVARIANTS + 1 {
        fault(0, format!("the table has {} rows instead of {INVARIANTS}", next - 1));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_texts_are_names() {
        let code = "fn one_claim<T>() {}\n  fn other_claim(a: u8) { ensure(x, \"third_claim\", || \"no claim\") }";
        assert_eq!(names(code).collect::<Vec<_>>(), ["one_claim", "other_claim", "third_claim"]);
    }

    #[test]
    fn a_name_that_does_not_exist_and_a_row_without_any_are_faults() {
        let known = BTreeSet::from(["a_claim".to_owned()]);
        let rows =
            |claim: &str| -> String { (1..=INVARIANTS).map(|row| format!("| I{row} | {claim} | where |\n")).collect() };
        assert_eq!(check(&rows("`a_claim`, in `file.rs`"), &known), []);
        assert_eq!(check(&rows("not yet: it is new"), &known), []);
        assert_eq!(check(&rows("`another_claim`"), &known).len(), INVARIANTS);
        assert_eq!(check(&rows("perhaps"), &known).len(), INVARIANTS);
        assert_eq!(check(&rows("`a_claim`").replace("| I7 |", "| I8 |"), &known).len(), 1);
        assert_eq!(check("", &known).len(), 1);
    }
}
