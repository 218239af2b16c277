//! What Slack answers to a call of ours.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| runbook::slack::api::fuzz(bytes));
