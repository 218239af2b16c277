//! What a machine cannot show. A test that needs it says so, for it would else pass in silence.

use std::io::Write;

/// Says what is not tested here, and why. This is seen although the test passes: only what macros print is captured.
pub fn not_tested(what: &str) {
    let _ = writeln!(std::io::stderr(), "not tested: {what}");
}

/// Whether whoever runs the tests does without something, by this variable.
pub fn is_excused(variable: &str) -> bool {
    let is_set = std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    if is_set {
        not_tested(&format!("something, because {variable} is set"));
    }
    is_set
}

/// Whether root runs the tests, as something needs.
pub fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        not_tested(&format!("{what}, which needs root"));
    }
    is_root
}
