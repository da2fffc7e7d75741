//! One libFuzzer program for all targets: `WEFT_FUZZ_TARGET` names the one to run. Started by `cargo xtask fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("WEFT_FUZZ_TARGET").unwrap_or_default();
        let found = weft_fuzz::TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("WEFT_FUZZ_TARGET={name:?} names no target")).run
    });
    target(data);
});
