//! One target of `tests/fuzz` under libFuzzer, named by `DIAGBOT_FUZZ_TARGET`. Owns no promise of its own: what an input must
//! keep is said in `tests/fuzz/targets.rs`, which ordinary tests run too.

#![no_main]

#[path = "../../targets.rs"]
mod targets;

use std::sync::LazyLock;

/// What a target makes of an input; coverage judges novelty here.
pub(crate) type Class = u64;

/// The shipped catalog.
pub(crate) const COMMANDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../commands");

static TARGET: LazyLock<Box<dyn Fn(&[u8]) -> targets::Seen + Send + Sync>> =
    LazyLock::new(|| match std::env::var("DIAGBOT_FUZZ_TARGET").as_deref() {
        Ok("grammar") => Box::new(targets::grammar()),
        Ok("catalog") => Box::new(targets::catalog),
        Ok("wire") => Box::new(targets::wire),
        Ok("inbound") => Box::new(targets::inbound),
        Ok("redaction") => Box::new(targets::redaction()),
        other => panic!("DIAGBOT_FUZZ_TARGET names no target: {other:?}"),
    });

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    TARGET(input);
});
