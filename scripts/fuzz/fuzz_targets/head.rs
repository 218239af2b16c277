//! The head of a request, as any stranger may send it. The last byte says where it is cut in two.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.last().copied().unwrap_or_default();
    runbook::webhook::fuzz_head(bytes, usize::from(cut));
});
