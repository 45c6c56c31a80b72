//! That the table of threats names tests, and that every test of an attempt is in it.

use std::collections::BTreeSet;

#[test]
fn every_threat_has_its_test_and_every_attempt_is_a_threat() {
    let table = include_str!("../../src/sandbox/mod.rs");
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | ")).skip(2);
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.rsplit(" | ").next())
        .flat_map(|tests| tests.trim_end_matches(" |").split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let texts = [
        include_str!("escape.rs"),
        include_str!("secrets.rs"),
        include_str!("smuggle.rs"),
        include_str!("hostile.rs"),
        include_str!("collect.rs"),
        include_str!("kill.rs"),
    ];
    let tests = |text: &'static str| {
        let after = text.split("#[test]\nfn ").skip(1);
        after.filter_map(|rest| rest.split('(').next()).collect::<BTreeSet<&str>>()
    };
    let there: BTreeSet<&str> = texts.into_iter().flat_map(tests).collect();
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "the table names tests that are not there: {missing:?}");
    // Of the files that hold nothing else. What is no attempt there is named here.
    let other = BTreeSet::from([
        "it_has_no_user_no_group_no_capability_and_both_filters",
        "landlock_is_enforced_as_far_as_the_kernel_knows_it",
        "a_terminal_is_a_terminal_of_that_width_and_passes_bytes_on",
        "one_pipe_for_both_outputs_keeps_their_order",
        "the_output_layer_can_be_read_after_the_last_process_is_gone",
        "a_failed_step_says_which_and_on_what",
        "a_path_that_leaves_the_root_has_no_name",
    ]);
    let attempts: BTreeSet<&str> = texts[..4].iter().copied().flat_map(tests).collect();
    let unnamed: Vec<_> = attempts.difference(&named).filter(|name| !other.contains(*name)).collect();
    assert!(unnamed.is_empty(), "these attempts are not in the table: {unnamed:?}");
}
