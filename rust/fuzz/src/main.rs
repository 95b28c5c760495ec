//! The program that libFuzzer drives: `FUZZ_TARGET` names the target.
#![no_main]

use std::sync::LazyLock;

use ehrfast_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = TARGETS.iter().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("FUZZ_TARGET is none of the targets: {name:?}"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
