//! What Slack shows, drawn for a terminal: a message is a box, a private word a line.

use serde_json::Value;
use unicode_width::UnicodeWidthChar;

use super::call::Call;
use super::people::{BOT, PEOPLE};
use crate::complaint::Printable;

/// Columns of a box, without its frame.
const WIDTH: usize = 60;

/// What a call that Slack was content with changes for people; `None` when they see nothing of it.
pub fn picture(call: &Call) -> Option<String> {
    if call.error.is_some() {
        return None;
    }
    match call.method.as_str() {
        "chat.postMessage" | "chat.update" => Some(draw(call.blocks())),
        "chat.postEphemeral" => {
            let person = plainly(&format!("<@{}>", call.argument("user")));
            Some(format!(
                "Only {person} sees: {}\n",
                plainly(call.argument("text"))
            ))
        }
        "response_url" if call.body["replace_original"] == true => Some(draw(call.blocks())),
        "response_url" => {
            let text = plainly(call.argument("text"));
            Some(format!("Only whoever clicked sees: {text}\n"))
        }
        "views.open" => call.body["view"]["blocks"]
            .as_array()
            .map(|blocks| draw(blocks)),
        _ => None,
    }
}

/// Blocks in a box, as the documentation draws them.
fn draw(blocks: &[Value]) -> String {
    let bar = "─".repeat(WIDTH);
    let line = |text: &str| {
        let gap = " ".repeat((WIDTH - 2).saturating_sub(width(text)));
        format!("│ {text}{gap} │\n")
    };
    let mut drawn = format!("┌{bar}┐\n");
    for (index, block) in blocks.iter().enumerate() {
        let lines = lines(block);
        if index > 0 && !is_label(&blocks[index - 1]) {
            drawn += &line("");
        }
        drawn.extend(lines.iter().map(|text| line(text)));
        if block["type"] == "header" {
            drawn.extend(["├", &bar, "┤\n"]);
        }
    }
    drawn + &line("") + &format!("└{bar}┘\n")
}

/// Whether a block names the one below it: `Rollback:`.
fn is_label(block: &Value) -> bool {
    let text = block["text"]["text"].as_str();
    text.is_some_and(|text| text.ends_with(':'))
}

/// A block's lines, no longer than the box is wide.
fn lines(block: &Value) -> Vec<String> {
    let list = |name: &str| block[name].as_array().cloned().unwrap_or_default();
    let text = |object: &Value| plainly(object["text"].as_str().unwrap_or_default());
    let wrapped = |texts: Vec<String>| texts.iter().flat_map(|text| wrap(text, "")).collect();
    match block["type"].as_str() {
        Some("header") => wrapped(vec![text(&block["text"])]),
        Some("section") => {
            let texts = [&block["text"]].into_iter().filter(|text| text.is_object());
            let mut texts: Vec<String> = texts.map(text).collect();
            texts.extend(list("fields").iter().map(text));
            wrapped(texts)
        }
        Some("context") => wrapped(list("elements").iter().map(text).collect()),
        Some("actions") => {
            let button = |button: &Value| format!("[{}]", text(&button["text"]));
            let buttons: Vec<String> = list("elements").iter().map(button).collect();
            vec![buttons.join("  ")]
        }
        Some("rich_text") => {
            let parts = list("elements");
            let parts = parts.iter().filter_map(|part| part["elements"].as_array());
            let code = |runs: &Vec<Value>| runs.iter().map(|run| code(&run["text"])).collect();
            let code: Vec<String> = parts.map(code).collect();
            code.iter().flat_map(|text| wrap(text, "  ")).collect()
        }
        Some("input") => vec![
            text(&block["label"]),
            format!("[{}]", " ".repeat(WIDTH - 4)),
        ],
        _ => Vec::new(),
    }
}

fn code(text: &Value) -> String {
    text.as_str().unwrap_or_default().to_owned()
}

/// Words in lines, those behind the first of a paragraph indented.
fn wrap(text: &str, indent: &str) -> Vec<String> {
    let room = WIDTH - 2;
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = indent.to_owned();
        for word in paragraph.split(' ') {
            let word = Printable(word).to_string();
            if line.trim().is_empty() {
                line += &word;
            } else if width(&line) + 1 + width(&word) <= room {
                line = format!("{line} {word}");
            } else {
                lines.push(line);
                line = format!("{indent}  {word}");
            }
        }
        lines.push(line);
    }
    lines
}

/// Columns of a terminal.
fn width(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// mrkdwn as people read it: names for ids, characters for entities.
fn plainly(text: &str) -> String {
    let names = PEOPLE.iter().map(|person| (person.id, person.username));
    let text = names
        .chain([(BOT, "runbook")])
        .fold(text.to_owned(), |text, (id, name)| {
            text.replace(&format!("<@{id}>"), &format!("@{name}"))
                .replace(id, &format!("@{name}"))
        });
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_a_box_whose_lines_are_all_as_wide() {
        let long = "word ".repeat(30);
        let drawn = draw(&[
            json!({ "type": "header", "text": { "text": "🔐 Runbook Approval Request" } }),
            json!({ "type": "section", "fields": [{ "text": long }, { "text": "by <@U061F7AUR>" }] }),
            json!({ "type": "section", "text": { "text": "Rollback:" } }),
            json!({ "type": "rich_text", "elements": [{ "elements": [{ "text": "aws ecs" }] }] }),
            json!({ "type": "actions", "elements": [
                { "text": { "text": "✅ Approve" } }, { "text": { "text": "❌ Deny" } }] }),
        ]);
        assert!(
            drawn.lines().all(|line| width(line) == WIDTH + 2),
            "{drawn}"
        );
        assert!(drawn.contains("│ by @alice "), "{drawn}");
        assert!(drawn.contains("│ [✅ Approve]  [❌ Deny] "), "{drawn}");
        let code = drawn.lines().position(|line| line.contains("  aws ecs"));
        let label = drawn.lines().position(|line| line.contains("Rollback:"));
        assert_eq!(code, label.map(|at| at + 1), "{drawn}");
    }
}
