//! Real NFS and real file systems: bitts-mount and the agent with the kernel's client and server and
//! with loop devices, in user-mode Linux.

mod agent;
mod beside;
mod cgroup;
mod cloud;
mod deadlines;
mod disks;
mod healing;
mod kills;
mod leaks;
mod mounts;
mod provisioning;
mod quotas;
mod speed;

use std::process::ExitCode;

use bitts_e2e::uml::{self, Case};

const CASES: &[Case] = &[
    ("every_version_is_mounted", mounts::every_version_is_mounted),
    (
        "wrong_and_missing_servers",
        mounts::wrong_and_missing_servers,
    ),
    (
        "a_killed_server_comes_back",
        mounts::a_killed_server_comes_back,
    ),
    (
        "a_hung_server_costs_a_child",
        mounts::a_hung_server_costs_a_child,
    ),
    ("the_life_of_a_pod", agent::the_life_of_a_pod),
    ("two_pods_on_one_volume", agent::two_pods_on_one_volume),
    (
        "a_hung_server_blocks_no_other",
        agent::a_hung_server_blocks_no_other,
    ),
    ("a_hundred_mounts_at_once", speed::a_hundred_mounts_at_once),
    (
        "a_hung_pod_is_gone_in_time",
        deadlines::a_hung_pod_is_gone_in_time,
    ),
    (
        "a_killed_process_that_waits_for_the_server_is_let_go",
        deadlines::a_killed_process_that_waits_for_the_server_is_let_go,
    ),
    (
        "no_force_while_a_process_holds_on",
        deadlines::no_force_while_a_process_holds_on,
    ),
    (
        "a_process_in_a_hung_directory_blocks_no_other",
        deadlines::a_process_in_a_hung_directory_blocks_no_other,
    ),
    (
        "the_life_of_a_local_device",
        disks::the_life_of_a_local_device,
    ),
    (
        "a_foreign_device_stays_as_it_is",
        disks::a_foreign_device_stays_as_it_is,
    ),
    ("the_life_of_a_raw_device", disks::the_life_of_a_raw_device),
    (
        "killed_anywhere_with_a_device",
        disks::killed_anywhere_with_a_device,
    ),
    (
        "files_are_given_to_a_group",
        disks::files_are_given_to_a_group,
    ),
    ("disks_are_found_by_name", disks::disks_are_found_by_name),
    ("the_life_of_a_cloud_disk", cloud::the_life_of_a_cloud_disk),
    (
        "a_cloud_disk_that_something_else_has_is_told",
        cloud::a_cloud_disk_that_something_else_has_is_told,
    ),
    ("killed_at_any_moment", kills::killed_at_any_moment),
    (
        "a_killed_agents_mount_is_not_doubled",
        kills::a_killed_agents_mount_is_not_doubled,
    ),
    (
        "a_killed_agents_unmount_is_left",
        kills::a_killed_agents_unmount_is_left,
    ),
    (
        "what_vanished_is_mounted_again",
        healing::what_vanished_is_mounted_again,
    ),
    (
        "a_server_that_hangs_or_restarts_is_told",
        healing::a_server_that_hangs_or_restarts_is_told,
    ),
    (
        "a_stale_mount_is_mounted_anew",
        healing::a_stale_mount_is_mounted_anew,
    ),
    (
        "a_stale_mount_of_an_ended_pod_is_gone",
        healing::a_stale_mount_of_an_ended_pod_is_gone,
    ),
    (
        "a_server_that_moved_is_followed",
        healing::a_server_that_moved_is_followed,
    ),
    (
        "a_kubelets_mounts_are_mended",
        beside::a_kubelets_mounts_are_mended,
    ),
    (
        "a_kubelets_stale_mount_is_mounted_anew",
        beside::a_kubelets_stale_mount_is_mounted_anew,
    ),
    (
        "a_claim_has_a_directory_on_a_share",
        provisioning::a_claim_has_a_directory_on_a_share,
    ),
    (
        "a_claim_begins_as_a_copy",
        provisioning::a_claim_begins_as_a_copy,
    ),
    (
        "a_hundred_claims_at_once",
        provisioning::a_hundred_claims_at_once,
    ),
    (
        "a_dead_server_is_told_to_who_waits",
        provisioning::a_dead_server_is_told_to_who_waits,
    ),
    (
        "ext4_holds_a_writer_to_the_claims_size",
        quotas::ext4_holds_a_writer_to_the_claims_size,
    ),
    (
        "xfs_holds_a_writer_to_the_claims_size",
        quotas::xfs_holds_a_writer_to_the_claims_size,
    ),
    (
        "a_copy_on_ext4_is_held_to_its_size",
        quotas::a_copy_on_ext4_is_held_to_its_size,
    ),
    (
        "a_copy_on_xfs_shares_blocks_and_is_held_to_its_size",
        quotas::a_copy_on_xfs_shares_blocks_and_is_held_to_its_size,
    ),
    (
        "a_disk_without_quota_is_told",
        quotas::a_disk_without_quota_is_told,
    ),
    (
        "a_death_leaves_no_volume_without_its_limit",
        quotas::a_death_leaves_no_volume_without_its_limit,
    ),
    ("nothing_leaks_on_a_share", leaks::nothing_leaks_on_a_share),
];

fn main() -> ExitCode {
    bitts_mount::child::serve_with(&[bitts_provisioner::SERVICE]);
    if let Some(ended) = kills::process::be_agent_if_asked() {
        return ended;
    }
    if let Some(ended) = leaks::be_provisioner_if_asked() {
        return ended;
    }
    uml::main(CASES)
}
