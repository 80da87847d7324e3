//! Every test of jobs by its name, once. A binary turns the list, or a stated part of it, into tests of its own backend;
//! a function that no list names is dead code to the compiler.

/// Gives the whole list to a macro.
macro_rules! whole {
    ($with:ident) => {
        $with! {
            escape:
                calls_are_refused_as_the_table_says
                grants_open_what_they_name_and_nothing_else
                foreign_doors_to_the_kernel_kill
                files_of_the_host_and_the_kernel_stay_shut
                the_hosts_processes_and_sockets_are_out_of_reach
                a_job_has_a_network_of_its_own_with_loopback_alone
                no_descriptor_leaks_into_a_job
                a_working_directory_that_is_a_descriptor_is_refused
                the_program_of_the_shim_cannot_be_overwritten
                links_in_an_image_lead_nowhere
                setuid_and_file_capabilities_give_nothing
                written_files_cannot_be_executed_without_the_grant
                a_hostile_environment_stays_inside
                release_agents_of_the_host_stay_as_they_are;
            limit:
                a_memory_bomb_dies_of_its_own_limit
                memory_of_shared_files_counts
                a_fork_bomb_is_stopped_and_ends
                cpu_is_limited
                open_files_and_arguments_end_somewhere
                a_full_disk_is_the_jobs_alone
                the_time_limit_asks_first_and_then_kills
                the_lease_ends_a_job_without_an_agent_and_renewal_moves_it
                a_log_flood_never_stops_the_job_and_loss_is_counted
                logs_are_there_while_the_job_runs;
            outcome:
                output_and_code_come_back
                every_layer_is_read_back
                a_gpu_is_the_jobs_and_no_other_is
                links_that_lead_nowhere_give_way_to_our_files
                many_at_once_do_not_mix;
            probe:
                every_fact_is_looked_at_and_what_jobs_need_is_here
                a_program_without_the_verb_claims_nothing
                capacity_is_what_the_kernel_says
                the_cgroup_namespace_is_the_jobs_own;
            scratch:
                after_the_key_names_and_contents_are_unreadable
                leftovers_of_a_lost_agent_are_found_locked_and_removed
                a_job_works_in_its_scratch_and_another_jobs_shim_does_not_keep_it
                what_is_missing_is_named;
            supervision:
                a_second_start_of_one_attempt_is_refused
                a_restarted_agent_finds_everything_again
                a_killed_shim_takes_its_job_with_it
                a_killed_guard_is_replaced
                a_shim_killed_at_any_step_leaves_nothing
                an_agent_that_dies_while_the_sandbox_is_made_loses_nothing
                another_boot_means_that_everything_has_ended
                a_half_written_directory_is_ended_and_removed
                stop_asks_and_kill_does_not
                what_cannot_be_executed_and_what_ends_by_a_signal_says_so;
        }
    };
}

/// Makes tests of a list.
macro_rules! tests {
    ($($module:ident: $($test:ident)+;)+) => {
        $(mod $module {
            $(
                #[test]
                fn $test() {
                    crate::$module::$test();
                }
            )+
        })+
    };
}
