//! A YAML file whose every value knows its line and column, so that an error can say where.
//!
//! The events of the parser become a tree: numbers and truths are told from texts, aliases and merge
//! keys (`<<`) are expanded, a key that stands twice is a fault. However the text is made, the tree
//! has at most [`LARGEST`] parts and [`DEEPEST`] levels.

use std::collections::{HashMap, HashSet};
use std::fmt;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

/// The largest tree, in values plus bytes of text, aliases expanded. A megabyte of YAML has fewer; a
/// few lines of aliases of aliases would have billions.
const LARGEST: usize = 1 << 20;

/// How deep lists and sections may be nested, aliases expanded.
const DEEPEST: usize = 64;

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Placed<Node>>),
    Map(Entries),
}

type Entries = Vec<(Placed<String>, Placed<Node>)>;

/// Something of the file, and where it stands: an alias where it is used.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Place,
}

/// A place in the file; the first line and the first column are 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Option<Place>,
    pub(super) what: String,
}

/// Reads a YAML document. Duplicate keys, a second document and excessive nesting are faults.
pub(super) fn parse(text: &str) -> Result<Placed<Node>, Fault> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        size: 0,
    };
    let mut root = None;
    loop {
        let (event, at) = reader.next()?;
        match event {
            Event::DocumentStart(..) if root.is_some() => {
                return Err(at.fault("there is more than one document"));
            }
            Event::DocumentStart(..) => {
                let (event, at) = reader.next()?;
                root = Some(reader.node(event, at, 0)?);
            }
            Event::StreamEnd => return Ok(root.unwrap_or(at.holds(Node::Null))),
            _ => {}
        }
    }
}

/// Makes a tree of the parser's events.
struct Reader<'text> {
    events: Parser<'text, StrInput<'text>>,
    /// What an alias stands for, by the parser's number for it; there once it is complete.
    anchors: HashMap<usize, Placed<Node>>,
    /// What [`LARGEST`] limits.
    size: usize,
}

impl<'text> Reader<'text> {
    fn next(&mut self) -> Result<(Event<'text>, Place), Fault> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, Place::from(&span.start))),
            Some(Err(error)) => Err(Fault::from(&error)),
            None => Ok((Event::StreamEnd, Place { line: 1, column: 1 })),
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event, at: Place, depth: usize) -> Result<Placed<Node>, Fault> {
        if depth > DEEPEST {
            return Err(at.fault("it is nested too deeply"));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = match tag {
                    Some(tag) if tag.core_suffix().is_some() => tag.is_yaml_core_schema_tag("str"),
                    // A lone `!` says that it is not to be interpreted; other tools have other tags.
                    Some(tag) if tag.handle().is_empty() && tag.suffix() == "!" => true,
                    _ => style != ScalarStyle::Plain,
                };
                let text = text.into_owned();
                let node = if is_text {
                    Node::Text(text)
                } else {
                    plain(text)
                };
                (anchor, node)
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Node::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Node::Map(self.map(depth)?)),
            _ => return Err(at.fault("a value is missing")),
        };
        self.grow(value.own_size(), at)?;
        if anchor != 0 {
            self.grow(value.extent().0, at)?;
            self.anchors.insert(anchor, at.holds(value.clone()));
        }
        Ok(at.holds(value))
    }

    /// A copy of what an alias stands for.
    fn alias(&mut self, anchor: usize, at: Place, depth: usize) -> Result<Placed<Node>, Fault> {
        let Some(meant) = self.anchors.get(&anchor) else {
            return Err(at.fault("the alias stands within what it stands for"));
        };
        let (size, levels) = meant.value.extent();
        if depth + levels > DEEPEST {
            return Err(at.fault("it is nested too deeply"));
        }
        let value = meant.value.clone();
        self.grow(size, at)?;
        Ok(at.holds(value))
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Placed<Node>>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Entries, Fault> {
        let (mut entries, mut merged) = (Entries::new(), Entries::new());
        let mut seen = HashSet::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge =
                matches!(&event, Event::Scalar(key, ScalarStyle::Plain, ..) if key == "<<");
            let key = self.key(event, at, depth)?;
            let (event, at_value) = self.next()?;
            let value = self.node(event, at_value, depth + 1)?;
            if is_merge {
                merge(value, &mut merged)?;
            } else if seen.insert(key.clone()) {
                entries.push((at.holds(key), value));
            } else {
                return Err(at.fault(&format!("duplicate key {key}")));
            }
        }
        // What stands in the section itself wins, and then what was merged first.
        merged.retain(|(key, _)| seen.insert(key.value.clone()));
        entries.append(&mut merged);
        Ok(entries)
    }

    fn key(&mut self, event: Event, at: Place, depth: usize) -> Result<String, Fault> {
        // As it is written: `on` and `8080` are names here.
        if let Event::Scalar(key, _, 0, _) = event {
            self.grow(1 + key.len(), at)?;
            return Ok(key.into_owned());
        }
        match self.node(event, at, depth + 1)?.value {
            Node::Text(key) | Node::Number(key) => Ok(key),
            other => Err(at.fault(&format!("a key should be text, not {}", other.kind()))),
        }
    }

    fn grow(&mut self, by: usize, at: Place) -> Result<(), Fault> {
        self.size += by;
        if self.size > LARGEST {
            return Err(at.fault("it is too large, aliases and all"));
        }
        Ok(())
    }
}

/// Takes in what a `<<` names: a section, or a list of them.
fn merge(named: Placed<Node>, merged: &mut Entries) -> Result<(), Fault> {
    match named.value {
        Node::Map(mut entries) => merged.append(&mut entries),
        Node::List(sections) => {
            for section in sections {
                let Node::Map(mut entries) = section.value else {
                    return Err(section.at.fault("<< should name sections"));
                };
                merged.append(&mut entries);
            }
        }
        _ => return Err(named.at.fault("<< should name a section")),
    }
    Ok(())
}

/// What a text without quotes means. The truths are those of YAML 1.1, which people still write.
fn plain(text: String) -> Node {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        _ if is(&["true", "yes", "y", "on"]) => Node::Bool(true),
        _ if is(&["false", "no", "n", "off"]) => Node::Bool(false),
        _ => number(&text).map_or(Node::Text(text), Node::Number),
    }
}

/// A number in Rust's spelling: `0x10` is 16, and so are `+16` and `1.6e1`.
fn number(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    match whole(digits) {
        Some(number) if number > 0 && text.starts_with('-') => Some(format!("-{number}")),
        Some(number) => Some(number.to_string()),
        None => {
            let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
            Some(number.to_string())
        }
    }
}

fn whole(digits: &str) -> Option<u64> {
    let (radix, digits) = match digits.split_at_checked(2) {
        Some(("0x" | "0X", digits)) => (16, digits),
        Some(("0o" | "0O", digits)) => (8, digits),
        Some(("0b" | "0B", digits)) => (2, digits),
        _ => (10, digits),
    };
    if digits.starts_with(['_', '+']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

impl Node {
    /// The word for its kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }

    /// Its part of [`LARGEST`], without what it holds.
    fn own_size(&self) -> usize {
        match self {
            Self::Number(text) | Self::Text(text) => 1 + text.len(),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Map(_) => 1,
        }
    }

    /// Its part of [`LARGEST`] with all that it holds, and the levels below it.
    fn extent(&self) -> (usize, usize) {
        let below = |extents: &mut dyn Iterator<Item = (usize, usize)>| {
            extents.fold((1, 0), |(size, levels), (inner, depth)| {
                (size + inner, levels.max(1 + depth))
            })
        };
        match self {
            Self::List(items) => below(&mut items.iter().map(|item| item.value.extent())),
            Self::Map(entries) => below(&mut entries.iter().map(|(key, node)| {
                let (size, levels) = node.value.extent();
                (1 + key.value.len() + size, levels)
            })),
            _ => (self.own_size(), 0),
        }
    }
}

impl Place {
    fn holds<T>(self, value: T) -> Placed<T> {
        Placed { value, at: self }
    }

    fn fault(self, what: &str) -> Fault {
        Fault {
            at: Some(self),
            what: what.to_owned(),
        }
    }
}

impl From<&Marker> for Place {
    fn from(marker: &Marker) -> Self {
        Self {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

impl From<&ScanError> for Fault {
    fn from(error: &ScanError) -> Self {
        Place::from(error.marker()).fault(&error.info())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}, column {}: ", at.line, at.column)?;
        }
        f.write_str(&self.what)
    }
}
