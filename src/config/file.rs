//! The configuration file: how its values are found and read.
//!
//! The file is shared with other Runbook tools. Sections that are not ours are not interpreted; in
//! ours an unknown key is told, and under `safety` it is an error.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::document::{self, Fault, Node, Place, Placed};
use super::environment::Environment;
use super::keys::{KEYS, SECTIONS, fits, leads_to, siblings};
use crate::complaint::{Complaint, cannot_read, did_you_mean};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// A configuration file that was read, or the absence of one.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: PathBuf,
    values: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    at: Place,
    node: Node,
}

/// Whether variables in a value are replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expansion {
    No,
    Yes,
    /// If they are set; otherwise the value is as good as absent.
    IfSet,
}

impl ConfigFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It is missing, unreadable or broken; the complaint says `PATH: line L, column C: …`.
    pub(super) fn read(path: &Path) -> Result<Self, Complaint> {
        let shown = path.display();
        let cannot =
            |why: &str| Complaint::usage(format!("cannot read configuration {shown}: {why}"));
        let mut text = String::new();
        let file = File::open(path).map_err(|error| cannot_read("configuration", path, &error))?;
        file.take(LARGEST + 1)
            .read_to_string(&mut text)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidData => cannot("it is not UTF-8"),
                _ => cannot_read("configuration", path, &error),
            })?;
        if text.len() as u64 > LARGEST {
            return Err(cannot("it is larger than 1 MiB"));
        }
        Self::parse(path, &text)
    }

    /// Takes in the text of the file at `path`.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Complaint> {
        let mut file = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        document::parse(text)
            .and_then(|root| file.collect("", root))
            .map_err(|fault| file.complain(&fault))?;
        Ok(file)
    }

    /// Where it is; `None` when there is no file.
    pub(super) fn path(&self) -> Option<&Path> {
        (!self.path.as_os_str().is_empty()).then_some(&*self.path)
    }

    /// Takes in what is ours below `path`, and checks the keys there.
    fn collect(&mut self, path: &str, node: Placed<Node>) -> Result<(), Fault> {
        let at = node.at;
        match node.value {
            Node::Null => Ok(()),
            Node::Map(entries) => entries
                .into_iter()
                .try_for_each(|(key, node)| self.collect_key(path, &key, node)),
            other => {
                let name = if path.is_empty() { "the file" } else { path };
                Err(Fault {
                    at: Some(at),
                    what: format!("{name} should be a section, not {}", other.kind()),
                })
            }
        }
    }

    fn collect_key(
        &mut self,
        parent: &str,
        key: &Placed<String>,
        node: Placed<Node>,
    ) -> Result<(), Fault> {
        let path = if parent.is_empty() {
            key.value.clone()
        } else {
            format!("{parent}.{}", key.value)
        };
        // A list of approvers whose lines are all commented out must not admit everybody.
        let is_rule = KEYS.iter().any(|known| fits(known.path, &path))
            && path.starts_with("safety.approvers.");
        if is_rule && matches!(node.value, Node::Null) {
            return Err(Fault {
                at: Some(key.at),
                what: format!("{path} has no value; leave it out if it is not meant"),
            });
        }
        if KEYS.iter().any(|known| fits(known.path, &path)) {
            self.values.push(Entry {
                path,
                at: node.at,
                node: node.value,
            });
            return Ok(());
        }
        if KEYS.iter().any(|known| leads_to(known.path, &path)) {
            return self.collect(&path, node);
        }
        if !SECTIONS
            .iter()
            .any(|section| path.starts_with(&format!("{section}.")))
        {
            return Ok(());
        }
        let near = did_you_mean(&key.value, siblings(parent));
        let fault = Fault {
            at: Some(key.at),
            what: format!("unknown key {path}{near}"),
        };
        // A misspelt rule must not open the gate.
        if path.starts_with("safety.") {
            return Err(fault);
        }
        self.warnings
            .push(format!("{}: {fault}", self.path.display()));
        Ok(())
    }

    /// Replaces `${VAR}` and `${VAR:-default}` in all texts but those of the keys in `unused`. A key
    /// in `optional` that names a variable which is not set is as good as absent.
    pub(super) fn expand(
        &mut self,
        environment: &Environment,
        unused: &[&str],
        optional: &[&str],
    ) -> Result<(), Complaint> {
        self.expand_where(environment, |path| match path {
            path if unused.contains(&path) => Expansion::No,
            path if optional.contains(&path) => Expansion::IfSet,
            _ => Expansion::Yes,
        })
    }

    /// Replaces as [`ConfigFile::expand`] does, in the texts of these keys only.
    pub(super) fn expand_only(
        &mut self,
        environment: &Environment,
        wanted: &[&str],
    ) -> Result<(), Complaint> {
        self.expand_where(environment, |path| {
            if wanted.contains(&path) {
                Expansion::Yes
            } else {
                Expansion::No
            }
        })
    }

    /// Replaces what can be, and takes every key that names a variable which is not set for absent.
    pub(super) fn expand_what_is_set(&mut self, environment: &Environment) {
        // Nothing is left to complain about.
        let _ = self.expand_where(environment, |_| Expansion::IfSet);
    }

    fn expand_where(
        &mut self,
        environment: &Environment,
        how: impl Fn(&str) -> Expansion,
    ) -> Result<(), Complaint> {
        let mut faults = Vec::new();
        for entry in &mut self.values {
            let how = how(&entry.path);
            if how == Expansion::No {
                continue;
            }
            let before = faults.len();
            expand_node(&mut entry.node, entry.at, environment, &mut faults);
            if faults.len() > before && how == Expansion::IfSet {
                entry.node = Node::Null;
                faults.truncate(before);
            }
        }
        faults
            .first()
            .map_or(Ok(()), |fault| Err(self.complain(fault)))
    }

    /// Text, or a number as text.
    pub(super) fn text(&self, path: &str) -> Result<Option<String>, Complaint> {
        self.read_value(path, "text", |node| match node {
            Node::Text(text) | Node::Number(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A text that means something: `expected` says what, when `meaning` knows none.
    pub(super) fn parsed<T>(
        &self,
        path: &str,
        expected: &str,
        meaning: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Complaint> {
        self.read_value(path, expected, |node| match node {
            Node::Text(text) | Node::Number(text) => meaning(text),
            _ => None,
        })
    }

    pub(super) fn flag(&self, path: &str) -> Result<Option<bool>, Complaint> {
        self.read_value(path, "true or false", |node| match node {
            Node::Bool(value) => Some(*value),
            Node::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// A list of texts that each mean something; a single text is a list of one.
    pub(super) fn list<T>(
        &self,
        path: &str,
        expected: &str,
        meaning: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Complaint> {
        self.read_value(path, expected, |node| match node {
            Node::Text(text) => Some(vec![meaning(text)?]),
            Node::List(items) => {
                let item = |item: &Placed<Node>| match &item.value {
                    Node::Text(text) | Node::Number(text) => meaning(text),
                    _ => None,
                };
                items.iter().map(item).collect()
            }
            _ => None,
        })
    }

    /// Whether the file says anything under a key.
    pub(super) fn has(&self, path: &str) -> bool {
        self.values
            .iter()
            .any(|entry| entry.path == path && !matches!(entry.node, Node::Null))
    }

    /// Whether the text of a key, or one of its texts, is more than a reference to a variable. To be asked before
    /// references are replaced.
    pub(super) fn spells_out(&self, path: &str) -> bool {
        let is_literal = |node: &Node| match node {
            Node::Text(text) => !text.trim().is_empty() && !text.contains("${"),
            Node::Number(_) => true,
            _ => false,
        };
        let mut values = self.values.iter().filter(|entry| entry.path == path);
        values.any(|entry| match &entry.node {
            Node::List(items) => items.iter().any(|item| is_literal(&item.value)),
            node => is_literal(node),
        })
    }

    /// A complaint about the value of a key.
    pub(super) fn complain_about(&self, path: &str, what: &str) -> Complaint {
        let at = self
            .values
            .iter()
            .find(|entry| entry.path == path)
            .map(|entry| entry.at);
        self.complain(&Fault {
            at,
            what: format!("{path}: {what}"),
        })
    }

    fn read_value<T>(
        &self,
        path: &str,
        expected: &str,
        read: impl Fn(&Node) -> Option<T>,
    ) -> Result<Option<T>, Complaint> {
        debug_assert!(
            KEYS.iter().any(|known| fits(known.path, path)),
            "{path} is not in the table"
        );
        match self.values.iter().find(|entry| entry.path == path) {
            None
            | Some(Entry {
                node: Node::Null, ..
            }) => Ok(None),
            Some(entry) => read(&entry.node).map(Some).ok_or_else(|| {
                let what = format!("{path} should be {expected}");
                self.complain(&Fault {
                    at: Some(entry.at),
                    what,
                })
            }),
        }
    }

    fn complain(&self, fault: &Fault) -> Complaint {
        Complaint::usage(format!("{}: {fault}", self.path.display()))
    }
}

fn expand_node(node: &mut Node, at: Place, environment: &Environment, faults: &mut Vec<Fault>) {
    match node {
        Node::Text(text) => match expand_text(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(what) => faults.push(Fault { at: Some(at), what }),
        },
        Node::List(items) => {
            for item in items {
                expand_node(&mut item.value, item.at, environment, faults);
            }
        }
        Node::Map(_) | Node::Null | Node::Bool(_) | Node::Number(_) => {}
    }
}

fn expand_text(text: &str, environment: &Environment) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (reference, behind) = after.split_once('}').ok_or("${ without its }")?;
        let (name, default) = reference
            .split_once(":-")
            .map_or((reference, None), |(n, d)| (n, Some(d)));
        let value = environment
            .value(name)?
            .or_else(|| default.map(str::to_owned));
        expanded += before;
        expanded += &value.ok_or_else(|| format!("the environment variable {name} is not set"))?;
        rest = behind;
    }
    Ok(expanded + rest)
}
