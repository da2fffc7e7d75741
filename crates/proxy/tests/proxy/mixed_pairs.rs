//! The suites of pairs with one proxy in a process of its own, both ways round ([`mixed`]).

use crate::mixed;

#[test]
fn what_a_pair_does_it_does_with_another_program() {
    mixed::run(&["pair::", "transparency::"], &[]);
}
