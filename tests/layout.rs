//! The shape of the house: imports go down only, and nobody reaches past their own floor.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, highest first. A module may import from floors below its own.
const FLOORS: &[&[&str]] = &[
    &["commands"],
    &["demo"],
    &["config"],
    &["webhook", "client"],
    &["effects"],
    &["slack", "store"],
    &["approval"],
    &["cli", "logging", "probe"],
    &["certificate", "outgoing", "random"],
    &["metrics"],
    &["allocator", "clock", "complaint", "copy", "live"],
];

/// What only some files may name.
const RESERVED: &[(&str, &[&str])] = &[
    ("tiny_http::", &["src/webhook/bridge.rs"]),
    ("ureq::", &["src/outgoing.rs"]),
    ("SystemTime::now", &["src/clock.rs"]),
    ("Instant::now", &["src/clock.rs"]),
    (".elapsed()", &["src/clock.rs"]),
    ("std::env::", &["src/config/environment.rs", "src/main.rs"]),
    ("fs2::", &["src/store/lock.rs"]),
    (
        "std::fs",
        &[
            "src/store",
            "src/config",
            "src/demo/place.rs",
            "src/webhook/bridge.rs",
            "src/webhook/tls.rs",
        ],
    ),
    ("println!", &["src/commands"]),
    ("unsafe {", &["src/allocator.rs", "src/copy.rs"]),
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    assert!(found.len() > 20, "the sources were not found");
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    // What stands in a file's own tests is not part of the house.
    let code = |path: &Path| {
        fs::read_to_string(path)
            .unwrap()
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .to_owned()
    };
    found.iter().map(|path| (name(path), code(path))).collect()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn module(file: &str) -> &str {
    let name = file.strip_prefix("src/").unwrap();
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn every_module_has_a_floor() {
    for (file, _) in sources() {
        let module = module(&file);
        assert!(
            matches!(module, "lib" | "main") || floor(module).is_some(),
            "{file} has no floor in this test"
        );
    }
}

#[test]
fn imports_go_down_only() {
    for (file, code) in sources() {
        let Some(own) = floor(module(&file)) else {
            continue;
        };
        for (at, _) in code.match_indices("crate::") {
            let target: String = code[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let below =
                floor(&target).unwrap_or_else(|| panic!("{file}: crate::{target} has no floor"));
            let inside = target == module(&file);
            assert!(
                inside || below > own,
                "{file} imports {target}, which is not below it"
            );
        }
    }
}

#[test]
fn reserved_names_stay_where_they_belong() {
    for (file, code) in sources() {
        for (name, allowed) in RESERVED {
            let free = allowed.iter().any(|allowed| file.starts_with(allowed));
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let used = lines.into_iter().any(|line| line.contains(name));
            assert!(
                free || !used,
                "{file} names {name}, which belongs to {allowed:?}"
            );
        }
    }
}

#[test]
fn the_top_level_is_as_small_as_it_looks() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "src",
        "tests",
        "fixtures",
        "scripts",
        "target",
    ];
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || name.starts_with("LICENSE") || allowed.contains(&&*name),
            "{name}"
        );
    }
}
