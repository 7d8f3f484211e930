//! The simulation is tested itself: every fault that is put in on purpose is found within a stated number of seeds, and
//! the plan that shows it can be cut down to a few jobs and faults.

use partita_sim::{Campaign, Plan, Plant, shrink};

fn plant(name: &str) -> Plant {
    Plant::all().into_iter().find(|plant| plant.name() == name).expect("a known fault")
}

/// Runs seeds with a fault until one fails, which must be by one of these invariants.
fn is_found(name: &str, within: u64, by: &[&str]) {
    let campaign = Campaign { first: 0, seeds: within, threads: 1, plant: Some(plant(name)) };
    let summary = campaign.run(&|_| true);
    let found = summary.found.first().unwrap_or_else(|| panic!("{name} was not found within {within} seeds"));
    let invariant = found.failed.violation.invariant;
    assert!(by.contains(&invariant), "{name} was found by {invariant}: {}", found.failed);
}

#[test]
fn an_acknowledgement_without_a_flush_is_found() {
    is_found("skipped-flush", 60, &["what_was_acknowledged_survives", "a_restart_shows_the_same_events"]);
}

#[test]
fn a_replay_that_is_applied_twice_is_found() {
    let by = ["a_task_succeeds_once_until_it_is_lost", "the_core_agrees_with_the_journal", "an_upload_is_taken_once"];
    is_found("replay-twice", 30, &by);
}

#[test]
fn a_partition_that_nobody_deletes_is_found() {
    is_found("orphan-partition", 20, &["hosts_have_what_the_core_believes", "nothing_is_left_behind"]);
}

#[test]
fn a_watcher_that_resumes_one_event_too_late_is_found() {
    is_found("watch-off-by-one", 30, &["a_watcher_sees_each_event_once", "watchers_saw_everything"]);
}

#[test]
fn a_weight_that_means_nothing_is_found() {
    is_found("weights-ignored", 200, &["cpu_is_shared_by_weight"]);
}

#[test]
fn a_limit_that_does_not_hold_is_found() {
    is_found("limit-ignored", 30, &["limits_of_cpu_hold"]);
}

#[test]
fn a_stale_attempt_that_counts_is_found() {
    is_found(
        "stale-attempt-accepted",
        30,
        &[
            "a_host_speaks_only_for_its_own",
            "a_task_succeeds_once_until_it_is_lost",
            "attempts_of_ended_tasks_are_stopped",
            "every_job_ends_in_time",
        ],
    );
}

#[test]
fn a_quota_that_is_not_given_back_with_a_lost_host_is_found() {
    is_found("quota-kept-on-host-loss", 30, &["usage_equals_sum_of_reservations"]);
}

#[test]
fn a_lost_wake_up_is_found() {
    is_found("lost-wake-up", 30, &["every_job_ends_in_time"]);
}

#[test]
fn a_tenant_that_starves_is_found() {
    is_found("lightest-tenant-starves", 500, &["nobody_starves"]);
}

#[test]
fn a_tenant_that_borrows_beyond_its_limit_is_found() {
    is_found("borrow-beyond-limit", 60, &["nothing_is_borrowed_beyond_its_limit"]);
}

#[test]
fn attempts_that_go_on_after_a_cancel_are_found() {
    is_found("cancel-forgets-attempts", 30, &["attempts_of_ended_tasks_are_stopped"]);
}

#[test]
fn a_wrong_parent_in_a_shuffle_is_found() {
    is_found("wrong-slice-parent", 20, &["outputs_are_what_the_reference_says"]);
}

#[test]
fn outputs_that_are_lost_and_forgotten_are_found() {
    is_found(
        "lost-outputs-forgotten",
        30,
        &["needed_outputs_are_somewhere", "nothing_panics", "every_job_ends_in_time"],
    );
}

#[test]
fn a_loser_whose_reservation_is_kept_is_found() {
    is_found("loser-keeps-reservation", 40, &["usage_equals_sum_of_reservations"]);
}

#[test]
fn a_loser_that_is_not_stopped_is_found() {
    is_found("loser-runs-on", 40, &["attempts_of_ended_tasks_are_stopped", "an_assigned_task_is_in_exactly_one_frame"]);
}

#[test]
fn a_task_that_is_started_twice_when_it_is_taken_back_is_found() {
    is_found("double-start-on-retraction", 40, &["a_task_runs_on_one_host_at_a_time"]);
}

#[test]
fn a_last_copy_that_is_dropped_in_a_move_is_found() {
    is_found("last-copy-dropped-in-move", 20, &["no_copy_is_dropped_that_counts"]);
}

#[test]
fn rates_that_are_not_divided_anew_when_a_frame_ends_are_found() {
    is_found("rates-outlive-frames", 20, &["rates_follow_frames"]);
}

#[test]
fn a_tenant_that_gets_more_turns_than_its_share_is_found() {
    is_found("overcommit-beyond-share", 20, &["only_who_has_less_gets_more"]);
}

#[test]
fn tenants_that_wait_behind_long_tasks_of_others_are_found() {
    is_found("nobody-takes-turns", 400, &["nobody_waits_behind_long_tasks"]);
}

#[test]
fn a_budget_of_live_bytes_that_is_not_given_back_is_found() {
    is_found("expected-bytes-kept", 20, &["usage_equals_sum_of_reservations"]);
}

#[test]
fn what_is_computed_again_though_it_is_kept_is_found() {
    is_found("computed-is-forgotten", 40, &["what_is_kept_is_not_run_again"]);
}

#[test]
fn no_planted_fault_is_without_a_test() {
    let tests = include_str!("planted.rs");
    for plant in Plant::all() {
        let named = tests.contains(&format!("{:?},", plant.name()));
        assert!(named, "{}", plant.name());
    }
}

#[test]
fn a_failing_plan_is_cut_down_to_what_matters() {
    let lost_wake_up = Some(plant("lost-wake-up"));
    let fails = |seed: &u64| shrink(&Plan::generate(*seed), lost_wake_up);
    let (plan, failed) = (0..30).find_map(|seed| fails(&seed)).expect("a seed that fails");
    assert_eq!(failed.violation.invariant, "every_job_ends_in_time");
    let arrays: usize = plan.jobs.iter().map(|job| job.arrays.len()).sum();
    assert!(plan.jobs.len() <= 2 && plan.hosts.len() == 1, "{plan:#?}");
    assert!(plan.faults.len() <= 1 && arrays <= 6, "{plan:#?}");
    assert!(!failed.log.is_empty(), "the smallest run is told in full");
}
