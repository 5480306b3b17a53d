//! The engine against storages that fail and repositories that are damaged.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cognitive_complexity,
    reason = "a case fails by panicking, and its steps belong together"
)]

mod cases;
mod support;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use cases::*;
use cases::{backup, chain, damage, encrypted, faults, killed, matrix, model, restore, stream, verify, zeros};

/// A case as a trial with a runtime of its own.
fn case<F: Future<Output = ()>>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run());
        Ok(())
    })
}

/// A case that may be impossible here: then it is ignored, and its kind says why.
fn case_unless<F: Future<Output = ()>>(
    name: &str,
    why_not: Option<&'static str>,
    run: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    match why_not {
        None => case(name, run),
        Some(reason) => case(name, run).with_ignored_flag(true).with_kind(reason),
    }
}

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(case(concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

#[expect(clippy::too_many_lines, reason = "one line for each case")]
fn main() -> ExitCode {
    if zeros::child().is_some() {
        return ExitCode::SUCCESS;
    }
    if let Some(done) = support::worker::run() {
        done.unwrap();
        return ExitCode::SUCCESS;
    }
    let mut trials = cases![
        stream::all_sizes_survive,
        stream::any_size_chunk_and_range_survives,
        stream::ranges_read_only_their_frames,
        stream::many_open_artifacts_make_progress,
        stream::a_stalled_storage_stops_the_dump,
        stream::a_stalled_storage_holds_up_no_other,
        backup::services_are_pinned_together_and_listed,
        backup::encryption_is_off_only_by_saying_so,
        backup::somebody_elses_folder_does_not_become_a_repository,
        backup::an_artifact_that_is_dropped_does_not_exist,
        backup::what_others_put_beside_the_backups_hides_none,
        backup::order_is_the_manifests_within_a_second,
        backup::a_failing_service_fails_the_backup_and_is_named,
        backup::a_partial_backup_keeps_what_succeeded,
        backup::chosen_services_must_exist_and_be_datastores,
        backup::a_cancelled_backup_leaves_nothing,
        backup::what_a_killed_backup_leaves_is_no_backup,
        damage::every_flip_and_every_cut_is_found,
        damage::damage_is_located_by_its_frame,
        damage::swapped_objects_are_found,
        damage::a_damaged_or_foreign_manifest_is_listed_as_such,
        damage::a_copied_backup_is_none,
        damage::a_later_repository_is_incompatible,
        hooks::they_run_in_order_around_pins_and_bytes,
        hooks::a_failure_before_the_dump_stores_nothing,
        hooks::what_always_runs_does_after_every_failure_and_once,
        hooks::a_stopped_backup_undoes_and_a_dropped_one_does_not,
        hooks::a_partial_backup_survives_the_hook_of_one_service,
        hooks::a_command_is_told_what_it_is_about,
        hooks::a_failed_command_tells_no_secret,
        hooks::a_command_that_hangs_is_killed_with_its_children,
        hooks::a_failing_restore_hook_tells_the_state_of_the_target,
        progress::a_backup_is_estimated_by_the_last_one,
        progress::bytes_are_told_while_they_come,
        progress::a_lock_that_the_storage_lacks_is_refused_at_once,
        progress::a_verify_tells_what_it_reads,
        progress::a_copy_tells_what_it_moves,
        progress::a_prune_and_a_collection_tell_what_they_free,
        schedule::runs_come_at_their_times_and_once,
        schedule::jitter_delays_the_start_and_not_the_time,
        schedule::a_sleep_of_the_machine_is_dealt_with_as_it_was_said,
        schedule::a_run_that_takes_long_is_never_joined_by_another,
        schedule::what_was_missed_while_the_process_was_down_is_known,
        schedule::a_clock_that_is_set_back_repeats_nothing_unless_it_was_wrong,
        schedule::waiting_can_be_given_up_and_taken_up_again,
        schedule::work_is_driven_one_run_after_the_other,
        encrypted::all_sizes_survive,
        encrypted::only_the_recipients_can_read,
        encrypted::any_range_is_that_of_the_plain_bytes,
        encrypted::a_range_reads_only_its_chunks,
        encrypted::flips_and_cuts_are_damage_and_are_located,
        flips::every_byte_of_an_encrypted_repository,
        zeros::a_stream_of_any_length_takes_constant_memory,
        killed::at_any_moment_it_leaves_no_false_backup,
        killed::backups_a_prune_and_a_verify_at_once_all_finish,
        model::random_histories_keep_the_promises,
        matrix::a_first_backup,
        matrix::a_second_backup,
        matrix::a_backup_on_a_disk,
        matrix::a_hang_during_a_dump_ends_at_its_deadline,
        matrix::a_restore,
        matrix::a_copy_at_its_target,
        matrix::a_copy_at_its_source,
        matrix::a_prune,
        matrix::an_announcement,
        matrix::a_purge,
        matrix::an_undelete,
        matrix::a_collection_of_garbage,
        faults::a_storage_that_loses_bytes_is_found_before_the_commit,
        faults::a_provider_cannot_ignore_a_write_error,
        golden::repositories_of_version_1_stay_restorable,
        trust::only_a_trusted_key_is_believed,
        trust::a_signature_that_is_changed_or_gone_is_damage,
        trust::a_newest_backup_that_is_not_trusted_is_not_passed_over_in_silence,
        trust::a_deletion_in_a_signed_repository_must_be_signed,
        trust::each_manifest_names_the_one_before,
        trust::an_encrypted_manifest_shows_only_what_is_needed_without_a_key,
        trust::a_key_that_does_not_fit_is_found_when_the_repository_is_opened,
        trust::a_listing_with_a_cache_reads_only_what_is_new,
        trust::a_cache_gives_what_the_storage_gives_and_is_never_believed,
        retention::a_plan_is_announced_and_then_purged,
        retention::a_prune_on_a_disk_leaves_no_directory,
        retention::without_grace_both_steps_are_one,
        retention::an_announced_backup_can_be_had_back,
        retention::what_changed_since_the_plan_is_left_alone,
        retention::more_than_half_needs_force_when_it_is_applied,
        retention::the_newest_verified_backup_stays,
        retention::a_forged_tombstone_hides_and_deletes_nothing,
        retention::a_stack_that_is_restored_is_not_purged,
        retention::what_a_killed_restore_held_keeps_no_backup_for_ever,
        retention::two_prunes_do_not_run_at_once,
        retention::the_chain_goes_on_past_what_was_pruned,
        retention::every_call_of_a_prune_fails,
        retention::gc_keeps_a_backup_that_runs,
        retention::a_backup_that_gc_takes_for_garbage_fails,
        retention::gc_leaves_a_backup_that_ends_at_that_moment,
        retention::gc_removes_what_crashes_left,
        retention::gc_removes_unfinished_uploads,
        retention::every_call_of_gc_fails,
        retention::many_backups_are_planned_in_little_time_and_memory,
        restore::a_wiped_stack_comes_back,
        lease::a_restore_holds_the_lease_of_its_stack,
        lease::a_repository_that_can_only_be_read_can_be_restored_from,
        lease::a_cancelled_restore_is_in_nobodys_way,
        copy::a_copy_is_the_backup_byte_for_byte,
        copy::only_what_is_chosen_is_copied,
        copy::what_retention_deleted_at_the_target_is_not_brought_again,
        copy::what_is_brought_again_is_no_more_to_be_deleted,
        copy::a_damaged_backup_is_refused_and_the_others_are_copied,
        copy::what_an_earlier_copy_left_is_read_before_it_counts,
        copy::a_copy_needs_no_key_to_read_and_keeps_its_own,
        copy::only_a_record_makes_a_foreign_manifest_a_backup,
        copy::every_call_of_the_target_fails_and_a_retry_completes,
        copy::every_call_of_the_source_fails_and_a_retry_completes,
        restore::only_what_is_chosen_is_restored,
        restore::a_plan_whose_target_changed_is_refused,
        restore::a_backup_that_is_gone_or_replaced_since_the_plan_is_refused,
        faults::a_manifest_that_cannot_be_read_is_listed_as_damaged,
        restore::what_a_provider_loses_is_found_by_the_census,
        restore::a_plan_that_misses_something_is_refused_before_any_service,
        verify::each_byte_is_in_exactly_one_part,
        verify::each_encrypted_byte_is_in_a_part,
        verify::an_encrypted_manifest_is_checked_without_its_key,
        verify::a_drill_restores_every_service_and_counts,
        verify::a_drill_tells_what_did_not_come_back,
        verify::a_damaged_service_is_not_drilled,
        verify::a_drill_that_is_dropped_leaves_no_store,
        verify::what_can_not_be_checked_is_an_error,
        verify::every_run_leaves_evidence_if_it_can,
        verify::evidence_counts_only_for_what_it_saw,
        verify::only_evidence_of_trusted_keys_counts,
        chain::a_whole_chain_has_no_findings,
        chain::a_backup_that_was_taken_away_is_missed,
        chain::the_newest_is_missed_by_who_remembers_it,
        chain::another_manifest_of_the_same_id_is_found,
        chain::renamed_and_replayed_manifests_are_found,
        chain::a_deletion_by_a_policy_breaks_no_chain,
        chain::a_manifest_that_forgets_the_one_before_is_found,
        chain::a_look_at_a_stack_reads_no_other,
        freshness::it_says_how_old_everything_is,
        freshness::what_is_late_or_odd_is_a_risk,
        freshness::evidence_from_the_future_vouches_for_nothing,
        freshness::a_storage_that_hangs_costs_one_request,
        freshness::a_repository_that_is_gone_or_another_is_told,
        freshness::a_write_is_tried_and_leaves_nothing,
        freshness::a_directory_tells_whether_the_next_backup_fits,
    ];
    let no_zstd = (!Path::new("/usr/bin/zstd").exists()).then_some("no zstd is installed");
    trials.push(case_unless("stream::zstd_reads_every_artifact", no_zstd, stream::zstd_reads_every_artifact));
    let no_openssl = (!Path::new("/usr/bin/openssl").exists()).then_some("no openssl is installed");
    trials.push(case_unless("trust::openssl_checks_a_manifest", no_openssl, trust::openssl_checks_a_manifest));
    let no_age = encrypted::no_tools();
    trials.push(case_unless(
        "encrypted::age_and_zstd_read_every_artifact",
        no_age,
        encrypted::age_and_zstd_read_every_artifact,
    ));
    trials.push(case_unless("encrypted::what_age_encrypts_is_read", no_age, encrypted::what_age_encrypts_is_read));
    let no_full_disk = backup::no_full_disk();
    let full_disk = "backup::a_full_disk_is_io_and_leaves_nothing";
    trials.push(case_unless(full_disk, no_full_disk, backup::a_full_disk_is_io_and_leaves_nothing));
    #[cfg(feature = "s3")]
    trials.extend(s3_trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(feature = "s3")]
fn s3_trials() -> Vec<Trial> {
    use cases::s3;
    let mut trials = cases![
        s3::a_second_implementation_keeps_a_backup,
        lease::each_restore_from_a_bucket_takes_the_lease_anew,
        copy::a_bucket_takes_and_gives_copies,
        s3::a_wrong_key_is_refused_at_once_and_not_told,
        s3::where_nothing_listens_is_unreachable,
        s3::where_nothing_answers_is_a_timeout,
        s3::where_tls_is_spoken_to_a_server_without_it_is_unreachable,
        s3::a_bucket_that_is_not_there_is_not_made,
        s3::a_limit_of_bandwidth_is_kept,
        s3::an_upload_that_stalls_fails_the_backup_in_time,
    ];
    let no_minio = (stackkit_fixtures::find_minio().is_err() && !stackkit_fixtures::is_required("minio"))
        .then_some("no minio is installed: cargo xtask servers minio");
    trials.push(case_unless("s3::minio_keeps_a_backup", no_minio, s3::minio_keeps_a_backup));
    trials.push(case_unless("s3::a_versioned_minio_keeps_a_backup", no_minio, s3::a_versioned_minio_keeps_a_backup));
    trials.push(case_unless("s3::a_locking_minio_keeps_a_backup", no_minio, s3::a_locking_minio_keeps_a_backup));
    let locked = "locks::a_backup_is_locked_until_the_time_in_its_manifest";
    trials.push(case_unless(locked, no_minio, locks::a_backup_is_locked_until_the_time_in_its_manifest));
    let policy = "locks::a_policy_locks_the_first_backup_of_each_period";
    trials.push(case_unless(policy, no_minio, locks::a_policy_locks_the_first_backup_of_each_period));
    let kept = "locks::a_prune_of_a_versioned_bucket_tells_that_bytes_are_kept";
    trials.push(case_unless(kept, no_minio, locks::a_prune_of_a_versioned_bucket_tells_that_bytes_are_kept));
    let unfinished = "locks::a_failed_backup_leaves_no_unfinished_upload";
    trials.push(case_unless(unfinished, no_minio, locks::a_failed_backup_leaves_no_unfinished_upload));
    let bucket = "freshness::a_bucket_is_written_to_only_where_nothing_stays";
    trials.push(case_unless(bucket, no_minio, freshness::a_bucket_is_written_to_only_where_nothing_stays));
    let restart = "s3::a_backup_survives_a_restart_of_its_storage";
    trials.push(case_unless(restart, no_minio, s3::a_backup_survives_a_restart_of_its_storage));
    trials
}
