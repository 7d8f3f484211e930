//! A few rounds of what `cargo xtask chaos` does for as long as one likes.

use partita_tests::chaos::{self, Blow};

/// B20, B21, B46: the result is right whoever dies in the middle of a shuffle, whatever is lost is rebuilt and nothing
/// else, and nothing is left behind.
#[test]
fn five_blows_to_a_shuffle_cost_time_and_nothing_else() {
    let mut blows = Vec::new();
    chaos::run(5, 20_261_122, |round| {
        println!("{round:?}");
        blows.push(round.blow);
    });
    blows.sort_unstable();
    assert_eq!(blows, Blow::ALL);
}
