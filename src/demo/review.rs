//! Block Kit's blocks one by one, against what Slack documents of each: required fields, known fields, and limits.
//!
//! Source: <https://docs.slack.dev/reference/block-kit/blocks>

use serde_json::Value;

/// What is wrong with some blocks. In its methods `at` is the JSON pointer of the object beside it.
#[derive(Default)]
pub(super) struct Review {
    pub(super) problems: Vec<String>,
    block_ids: Vec<String>,
}

impl Review {
    pub(super) fn view(&mut self, at: &str, view: &Value) {
        let common = [
            "type",
            "blocks",
            "private_metadata",
            "callback_id",
            "external_id",
        ];
        let modal = [
            "title",
            "submit",
            "close",
            "clear_on_close",
            "notify_on_close",
        ];
        match view["type"].as_str() {
            Some("modal") => self.only(at, view, &[&common[..], &modal].concat()),
            _ => self.only(at, view, &common),
        }
        match view["type"].as_str() {
            Some("modal") => {
                self.text(at, view, "title", &["plain_text"], 24);
                let mut blocks = view["blocks"].as_array().into_iter().flatten();
                if blocks.any(|block| block["type"] == "input") {
                    self.required(at, view, "submit");
                }
            }
            Some("home") => {}
            _ => self.refuse(&format!("{at}/type"), "unsupported type"),
        }
        for button in ["submit", "close"] {
            self.optional_text(at, view, button, &["plain_text"], 24);
        }
        self.optional_string(at, view, "callback_id", 255);
        self.optional_string(at, view, "private_metadata", 3000);
        self.required(at, view, "blocks");
        self.blocks(at, view, 100);
    }

    pub(super) fn blocks(&mut self, at: &str, parent: &Value, most: usize) {
        for (at, block) in self.items(at, parent, "blocks", most) {
            self.block(&at, block);
        }
    }

    fn block(&mut self, at: &str, block: &Value) {
        self.optional_string(at, block, "block_id", 255);
        if let Some(id) = block["block_id"].as_str() {
            if self.block_ids.iter().any(|other| other == id) {
                self.taken(at, "block_id", id);
            }
            self.block_ids.push(id.to_owned());
        }
        match block["type"].as_str() {
            Some("header") => self.header(at, block),
            Some("section") => self.section(at, block),
            Some("divider") => self.only(at, block, &["type", "block_id"]),
            Some("context") => self.context(at, block),
            Some("actions") => self.actions(at, block),
            Some("image") => self.image_block(at, block),
            Some("rich_text") => self.rich_text(at, block),
            Some("input") => self.input(at, block),
            other => self.unsupported(at, other),
        }
    }

    fn header(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "text"]);
        self.text(at, block, "text", &["plain_text"], 150);
    }

    fn section(&mut self, at: &str, block: &Value) {
        let known = ["type", "block_id", "text", "fields", "accessory", "expand"];
        self.only(at, block, &known);
        if block.get("fields").is_none() {
            self.required(at, block, "text");
        }
        self.optional_text(at, block, "text", &["plain_text", "mrkdwn"], 3000);
        for (at, field) in self.items(at, block, "fields", 10) {
            self.text_object(&at, field, &["plain_text", "mrkdwn"], 2000);
        }
        if let Some(accessory) = block.get("accessory") {
            self.element(&format!("{at}/accessory"), accessory);
        }
    }

    fn context(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        for (at, element) in self.items(at, block, "elements", 10) {
            match element["type"].as_str() {
                Some("image") => self.image(&at, element),
                _ => self.text_object(&at, element, &["plain_text", "mrkdwn"], 3000),
            }
        }
    }

    fn actions(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        let mut ids = Vec::new();
        for (at, element) in self.items(at, block, "elements", 25) {
            self.element(&at, element);
            if let Some(id) = element["action_id"].as_str() {
                if ids.contains(&id) {
                    self.taken(&at, "action_id", id);
                }
                ids.push(id);
            }
        }
    }

    fn image_block(&mut self, at: &str, block: &Value) {
        self.image(at, block);
        self.optional_text(at, block, "title", &["plain_text"], 2000);
    }

    fn rich_text(&mut self, at: &str, block: &Value) {
        self.only(at, block, &["type", "block_id", "elements"]);
        self.required(at, block, "elements");
        for (at, element) in self.items(at, block, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some("rich_text_section" | "rich_text_quote") => {
                    self.rich_text_run(&at, element, &INLINE);
                }
                Some("rich_text_preformatted") => {
                    self.rich_text_run(&at, element, &["text", "link"]);
                }
                Some("rich_text_list") => self.rich_text_list(&at, element),
                other => self.unsupported(&at, other),
            }
        }
    }

    fn rich_text_list(&mut self, at: &str, list: &Value) {
        if !matches!(list["style"].as_str(), Some("bullet" | "ordered")) {
            self.refuse(&format!("{at}/style"), "must be a valid enum value");
        }
        self.required(at, list, "elements");
        for (at, element) in self.items(at, list, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some("rich_text_section") => self.rich_text_run(&at, element, &INLINE),
                other => self.unsupported(&at, other),
            }
        }
    }

    fn rich_text_run(&mut self, at: &str, run: &Value, kinds: &[&str]) {
        self.only(at, run, &["type", "elements", "border", "language"]);
        self.required(at, run, "elements");
        for (at, element) in self.items(at, run, "elements", usize::MAX) {
            match element["type"].as_str() {
                Some(kind) if kinds.contains(&kind) => match kind {
                    "text" => {
                        self.only(&at, element, &["type", "text", "style"]);
                        self.string(&at, element, "text", usize::MAX);
                    }
                    "link" => self.string(&at, element, "url", usize::MAX),
                    "user" => self.string(&at, element, "user_id", usize::MAX),
                    "emoji" => self.string(&at, element, "name", usize::MAX),
                    _ => {}
                },
                other => self.unsupported(&at, other),
            }
        }
    }

    fn input(&mut self, at: &str, block: &Value) {
        self.text(at, block, "label", &["plain_text"], 2000);
        self.optional_text(at, block, "hint", &["plain_text"], 2000);
        self.required(at, block, "element");
        let (at, element) = (format!("{at}/element"), &block["element"]);
        match element["type"].as_str() {
            Some("plain_text_input") => {
                for (bound, least) in [("min_length", 0), ("max_length", 1)] {
                    let number = element.get(bound).map(Value::as_u64);
                    if number.is_some_and(|n| n.is_none_or(|n| !(least..=3000).contains(&n))) {
                        let problem = format!("must be a number from {least} to 3000");
                        self.refuse(&format!("{at}/{bound}"), &problem);
                    }
                }
                self.optional_text(&at, element, "placeholder", &["plain_text"], 150);
                self.optional_string(&at, element, "action_id", 255);
            }
            other => self.unsupported(&at, other),
        }
    }

    fn element(&mut self, at: &str, element: &Value) {
        match element["type"].as_str() {
            Some("button") => self.button(at, element),
            Some("image") => self.image(at, element),
            other => self.unsupported(at, other),
        }
    }

    fn button(&mut self, at: &str, button: &Value) {
        let known = [
            "type",
            "text",
            "action_id",
            "value",
            "url",
            "style",
            "confirm",
            "accessibility_label",
        ];
        self.only(at, button, &known);
        self.text(at, button, "text", &["plain_text"], 75);
        self.string(at, button, "action_id", 255);
        self.optional_string(at, button, "value", 2000);
        self.optional_string(at, button, "url", 3000);
        self.optional_string(at, button, "accessibility_label", 75);
        self.style(at, button);
        if let Some(confirm) = button.get("confirm") {
            self.confirm(&format!("{at}/confirm"), confirm);
        }
    }

    fn confirm(&mut self, at: &str, confirm: &Value) {
        self.only(at, confirm, &["title", "text", "confirm", "deny", "style"]);
        self.text(at, confirm, "title", &["plain_text"], 100);
        self.text(at, confirm, "text", &["plain_text", "mrkdwn"], 300);
        self.text(at, confirm, "confirm", &["plain_text"], 30);
        self.text(at, confirm, "deny", &["plain_text"], 30);
        self.style(at, confirm);
    }

    fn image(&mut self, at: &str, image: &Value) {
        self.string(at, image, "alt_text", 2000);
        if image.get("slack_file").is_none() {
            self.string(at, image, "image_url", 3000);
        }
    }

    fn style(&mut self, at: &str, element: &Value) {
        if !matches!(
            element.get("style").map(Value::as_str),
            None | Some(Some("primary" | "danger"))
        ) {
            self.refuse(&format!("{at}/style"), "must be a valid enum value");
        }
    }

    fn text(&mut self, at: &str, parent: &Value, name: &str, kinds: &[&str], most: usize) {
        self.required(at, parent, name);
        self.optional_text(at, parent, name, kinds, most);
    }

    fn optional_text(&mut self, at: &str, parent: &Value, name: &str, kinds: &[&str], most: usize) {
        if let Some(text) = parent.get(name) {
            self.text_object(&format!("{at}/{name}"), text, kinds, most);
        }
    }

    fn text_object(&mut self, at: &str, text: &Value, kinds: &[&str], most: usize) {
        let (option, markup) = match text["type"].as_str() {
            Some("mrkdwn") => ("verbatim", Markup::Mrkdwn),
            _ => ("emoji", Markup::Plain),
        };
        match text["type"].as_str() {
            Some(kind) if kinds.contains(&kind) => {}
            other => self.unsupported(at, other),
        }
        self.only(at, text, &["type", "text", option]);
        self.required(at, text, "text");
        self.limited(at, text, "text", most, markup);
    }

    fn string(&mut self, at: &str, parent: &Value, name: &str, most: usize) {
        self.required(at, parent, name);
        self.optional_string(at, parent, name, most);
    }

    /// Identifiers and values are counted as text is: an escape can push them over their limit too.
    fn optional_string(&mut self, at: &str, parent: &Value, name: &str, most: usize) {
        self.limited(at, parent, name, most, Markup::Plain);
    }

    fn limited(&mut self, at: &str, parent: &Value, name: &str, most: usize, markup: Markup) {
        let at = format!("{at}/{name}");
        match parent.get(name).map(Value::as_str) {
            Some(None) => self.refuse(&at, "must be a string"),
            Some(Some("")) => self.refuse(&at, "must be more than 0 characters"),
            Some(Some(text)) if length(text, markup) > most => {
                self.refuse(&at, &format!("must be less than {} characters", most + 1));
            }
            Some(Some(_)) | None => {}
        }
    }

    /// The items of a list with their JSON pointers, as far as they are allowed; nothing when there is no such list.
    fn items<'v>(
        &mut self,
        at: &str,
        parent: &'v Value,
        name: &str,
        most: usize,
    ) -> Vec<(String, &'v Value)> {
        let at = format!("{at}/{name}");
        let Some(list) = parent.get(name).filter(|list| !list.is_null()) else {
            return Vec::new();
        };
        let Some(items) = list.as_array() else {
            self.refuse(&at, "must be an array");
            return Vec::new();
        };
        // A message may carry an empty list of blocks; every other list has to hold something.
        if items.is_empty() && name != "blocks" {
            self.refuse(&at, "no less than 1 items allowed");
        }
        if items.len() > most {
            self.refuse(&at, &format!("no more than {most} items allowed"));
        }
        let numbered = items.iter().enumerate().take(most);
        numbered
            .map(|(index, item)| (format!("{at}/{index}"), item))
            .collect()
    }

    fn required(&mut self, at: &str, object: &Value, name: &str) {
        if object.get(name).is_none() {
            self.refuse(at, &format!("missing required field: {name}"));
        }
    }

    fn only(&mut self, at: &str, object: &Value, known: &[&str]) {
        for (name, _) in object.as_object().into_iter().flatten() {
            if !known.contains(&name.as_str()) {
                self.refuse(at, &format!("invalid additional property: {name}"));
            }
        }
    }

    fn taken(&mut self, at: &str, name: &str, id: &str) {
        let problem = format!("{name} `{id}` already exists");
        self.refuse(&format!("{at}/{name}"), &problem);
    }

    fn unsupported(&mut self, at: &str, kind: Option<&str>) {
        let problem = match kind {
            Some(kind) => format!("unsupported type: {kind}"),
            None => "missing required field: type".to_owned(),
        };
        self.refuse(at, &problem);
    }

    pub(super) fn refuse(&mut self, at: &str, problem: &str) {
        let problem = format!("[ERROR] {problem} [json-pointer:{at}]");
        self.problems.push(problem);
    }
}

/// What may stand in a line of rich text.
const INLINE: [&str; 8] = [
    "text",
    "link",
    "user",
    "emoji",
    "channel",
    "usergroup",
    "date",
    "broadcast",
];

#[derive(Clone, Copy)]
pub(super) enum Markup {
    Plain,
    Mrkdwn,
}

/// Slack counts a text after `&`, `<` and `>` are escaped. In mrkdwn the sender did that, and `<` and `>` are markup.
pub(super) fn length(text: &str, markup: Markup) -> usize {
    let entity = |rest: &str| {
        ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|e| rest.starts_with(e))
    };
    text.char_indices()
        .map(|(at, c)| match (c, markup) {
            ('&', Markup::Mrkdwn) if entity(&text[at..]) => 1,
            ('&', _) => 5,
            ('<' | '>', Markup::Plain) => 4,
            _ => 1,
        })
        .sum()
}
