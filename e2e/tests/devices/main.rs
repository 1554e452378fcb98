//! Block devices: bitts-mount with real file systems on loop devices, in user-mode Linux.

mod foreign;
mod kills;
mod life;
mod place;

use std::process::ExitCode;

use bitts_e2e::uml::{self, Case};

const CASES: &[Case] = &[
    ("ext4_from_blank_to_grown", life::ext4_from_blank_to_grown),
    ("xfs_from_blank_to_grown", life::xfs_from_blank_to_grown),
    (
        "a_full_disk_keeps_its_files",
        life::a_full_disk_keeps_its_files,
    ),
    ("read_only_writes_nothing", life::read_only_writes_nothing),
    (
        "a_file_has_one_loop_device",
        life::a_file_has_one_loop_device,
    ),
    (
        "missing_programs_are_named",
        life::missing_programs_are_named,
    ),
    (
        "what_is_foreign_is_not_formatted",
        foreign::what_is_foreign_is_not_formatted,
    ),
    (
        "what_is_unclear_is_not_formatted",
        foreign::what_is_unclear_is_not_formatted,
    ),
    (
        "a_disk_that_hangs_costs_a_child",
        foreign::a_disk_that_hangs_costs_a_child,
    ),
    (
        "damage_is_told_with_what_to_do",
        foreign::damage_is_told_with_what_to_do,
    ),
    (
        "a_killed_ext4_format_is_taken_up",
        kills::a_killed_ext4_format_is_taken_up,
    ),
    (
        "a_killed_xfs_format_is_taken_up",
        kills::a_killed_xfs_format_is_taken_up,
    ),
    (
        "an_orphaned_format_is_waited_for",
        kills::an_orphaned_format_is_waited_for,
    ),
];

fn main() -> ExitCode {
    bitts_mount::child::serve();
    if let Some(formatted) = kills::be_formatter_if_asked() {
        return formatted;
    }
    uml::main(CASES)
}
