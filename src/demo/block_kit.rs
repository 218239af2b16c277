//! Block Kit as Slack checks it: what a message and a view may hold, and how much of it.
//!
//! Sources: <https://docs.slack.dev/reference/block-kit> and <https://docs.slack.dev/reference/views>

use serde_json::Value;

use super::review::{Markup, Review, length};
use super::web_api::{not_ok, refused};

/// Characters of a message's own text.
const TEXT: usize = 40_000;
/// Characters of all blocks of a message together. Slack documents no such limit and counts more than the texts: 13,297
/// characters passed in one block, and with a divider fewer; 11,341 in many small blocks did not. So all of their JSON
/// counts here. Sources: <https://github.com/slackapi/bolt-js/issues/2509> and
/// <https://github.com/slackapi/bolt-js/issues/2867>
const BLOCKS: usize = 13_000;

/// Checks what a message's call carries.
///
/// # Errors
/// Slack's answer when it refuses.
pub(super) fn check_message(body: &Value) -> Result<(), Value> {
    let none = Vec::new();
    let blocks = match &body["blocks"] {
        Value::Null => &none,
        Value::Array(blocks) => blocks,
        _ => return Err(not_ok("invalid_blocks_format")),
    };
    let attached = body["attachments"].as_array();
    let attached = attached.is_some_and(|list| !list.is_empty());
    let text = body["text"].as_str().unwrap_or_default();
    if text.is_empty() && blocks.is_empty() && !attached {
        return Err(not_ok("no_text"));
    }
    if length(text, Markup::Mrkdwn) > TEXT {
        return Err(not_ok("msg_too_long"));
    }
    let mut review = Review::default();
    review.blocks("", body, 50);
    if !review.problems.is_empty() {
        return Err(refused("invalid_blocks", &review.problems));
    }
    if length(&body["blocks"].to_string(), Markup::Mrkdwn) > BLOCKS {
        return Err(not_ok("msg_blocks_too_long"));
    }
    Ok(())
}

/// Bytes of a view's JSON, which Slack may write with escapes: `\u4e00`.
const VIEW_SIZE: usize = 250_000;

/// Checks a view of this kind.
///
/// # Errors
/// Slack's answer when it refuses.
pub(super) fn check_view(kind: &str, view: &Value) -> Result<(), Value> {
    let escaped = |c: char| if c.is_ascii() { 1 } else { 6 * c.len_utf16() };
    if view.to_string().chars().map(escaped).sum::<usize>() > VIEW_SIZE {
        return Err(not_ok("view_too_large"));
    }
    let mut review = Review::default();
    if view["type"] != kind {
        review.refuse("/view/type", &format!("must be {kind}"));
    }
    review.view("/view", view);
    if !review.problems.is_empty() {
        return Err(refused("invalid_arguments", &review.problems));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(count: usize) -> Value {
        json!({ "type": "plain_text", "text": "x".repeat(count) })
    }

    fn section(count: usize) -> Value {
        json!({ "type": "section", "text": text(count) })
    }

    fn button(action_id: &str) -> Value {
        json!({ "type": "button", "action_id": action_id, "text": text(1) })
    }

    #[test]
    fn a_message_may_have_what_slack_documents_and_no_more() {
        let actions = |elements: Value| json!({ "type": "actions", "elements": elements });
        let confirmed = |title: usize| {
            let mut button = button("a");
            button["confirm"] = json!({ "title": text(title), "text": text(300),
                "confirm": text(30), "deny": text(30) });
            actions(json!([button]))
        };
        let buttons = |count| {
            (0..count)
                .map(|n| button(&n.to_string()))
                .collect::<Value>()
        };
        let named = |id: &str| json!({ "type": "divider", "block_id": id });
        let fields = |count| json!({ "type": "section", "fields": vec![text(1); count] });
        for (fits, too_much) in [
            (vec![section(3000)], vec![section(3001)]),
            (vec![section(1); 50], vec![section(1); 51]),
            (vec![fields(10)], vec![fields(11)]),
            (vec![actions(buttons(25))], vec![actions(buttons(26))]),
            (vec![confirmed(100)], vec![confirmed(101)]),
            (vec![named("a"), named("b")], vec![named("a"), named("a")]),
            (
                vec![json!({ "type": "header", "text": text(150) })],
                vec![json!({ "type": "header", "text": text(151) })],
            ),
            (
                vec![json!({ "type": "context", "elements": vec![text(1); 10] })],
                vec![json!({ "type": "context", "elements": vec![text(1); 11] })],
            ),
            (
                vec![actions(json!([button("a"), button("b")]))],
                vec![actions(json!([button("a"), button("a")]))],
            ),
        ] {
            let check = |blocks: &[Value]| check_message(&json!({ "blocks": blocks }));
            assert_eq!(check(&fits), Ok(()));
            let refused = check(&too_much).unwrap_err();
            assert_eq!(refused["error"], "invalid_blocks", "{too_much:?}");
        }
    }

    #[test]
    fn all_blocks_of_a_message_together_are_limited_and_counted_as_slack_escapes_them() {
        let check = |blocks: Vec<Value>| check_message(&json!({ "blocks": blocks }));
        assert_eq!(check(vec![section(2500); 5]), Ok(()));
        let refused = check(vec![section(2600); 5]).unwrap_err();
        assert_eq!(refused["error"], "msg_blocks_too_long");

        let escaped = |kind: &str, text: String| {
            let text = json!({ "type": kind, "text": text });
            check(vec![json!({ "type": "section", "text": text })])
        };
        assert_eq!(escaped("plain_text", "&".repeat(600)), Ok(()));
        assert!(escaped("plain_text", "&".repeat(601)).is_err());
        assert_eq!(escaped("mrkdwn", "&amp;".repeat(600)), Ok(()));
    }

    #[test]
    fn a_dialog_needs_a_title_and_a_way_to_submit_what_it_asks() {
        let input = json!({ "type": "input", "label": text(1),
            "element": { "type": "plain_text_input", "action_id": "a", "max_length": 3000 } });
        let modal =
            json!({ "type": "modal", "title": text(24), "submit": text(24), "blocks": [input] });
        assert_eq!(check_view("modal", &modal), Ok(()));
        assert!(check_view("home", &modal).is_err());
        for (pointer, wrong) in [
            ("/title", text(25)),
            ("/submit", text(25)),
            ("/blocks/0/element/max_length", 3001.into()),
            ("/blocks/0/label", text(2001)),
        ] {
            let mut changed = modal.clone();
            *changed.pointer_mut(pointer).unwrap() = wrong;
            assert!(check_view("modal", &changed).is_err(), "{pointer}");
        }
        for needed in ["title", "submit", "blocks"] {
            let mut changed = modal.clone();
            changed.as_object_mut().unwrap().shift_remove(needed);
            assert!(check_view("modal", &changed).is_err(), "{needed}");
        }
    }
}
