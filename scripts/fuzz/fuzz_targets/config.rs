//! The configuration file: however broken, it is read or refused with a place, and quickly.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| runbook::config::fuzz(text));
