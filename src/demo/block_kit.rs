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
/// counts here, escaped as much as JSON may be. Sources: <https://github.com/slackapi/bolt-js/issues/2509> and
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
    if json_length(&body["blocks"].to_string()) > BLOCKS {
        return Err(not_ok("msg_blocks_too_long"));
    }
    Ok(())
}

/// The longest that Slack may make of this JSON: `\u4e00`, `\/`, and entities.
fn json_length(json: &str) -> usize {
    let slashes = json.matches('/').count();
    let ascii = length(json, Markup::Plain) + slashes;
    let others = json.chars().filter(|c| !c.is_ascii());
    others.fold(ascii, |sum, c| sum + 6 * c.len_utf16() - 1)
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
    use crate::approval::{
        Approval, ApprovalId, GroupId, LevelRule, Objection, Policy, Route, Status, UserId,
    };
    use crate::slack::dialog::{Subject, ask_why};
    use crate::slack::message::{Asking, Message, Occasion};
    use crate::slack::notice::{Notice, private};
    use crate::slack::text::Mention;
    use crate::slack::{home, mention};

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

    /// A critical request with every text as long and as hostile as can be, and with these fields.
    fn hostile(piece: &str, changes: &Value) -> Approval {
        let long = piece.repeat(4500);
        let id = "a".repeat(64);
        let vote = |n: usize| {
            json!({ "decision": "approve", "at": "2024-01-15T15:30:45Z",
            "by": { "id": format!("cli:{n}{}", piece.repeat(400)), "username": "x", "name": "x" } })
        };
        let votes: Vec<Value> = (0..30).map(vote).collect();
        let mut all = json!({ "id": id, "operation": format!("x{long}"), "riskLevel": "critical",
            "status": "pending", "expiresAt": "2999-01-15T15:30:45Z", "decisions": votes,
            "decidedBy": { "id": format!("cli:{long}"), "username": long, "name": long },
            "command": ["sh", "-c", long], "args": { "a": long } });
        for field in [
            "description",
            "resource",
            "estimatedImpact",
            "requestedBy",
            "investigationId",
            "rollbackCommand",
            "directory",
            "reason",
            "executionError",
        ] {
            all[field] = long.clone().into();
        }
        let all = all.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(all.shift_remove(name)),
                value => drop(all.insert(name.clone(), value.clone())),
            }
        }
        let id = ApprovalId::parse(&id).unwrap();
        Approval::parse(&id, Value::from(all.clone()).to_string().as_bytes()).unwrap()
    }

    /// What names as many as a configuration may, and more.
    fn crowd() -> (Policy, Vec<Mention>) {
        let id = |letter: char, n: usize| format!("{letter}{n:031}");
        let rule = LevelRule {
            users: (0..40).filter_map(|n| UserId::parse(&id('U', n))).collect(),
            groups: (0..40)
                .filter_map(|n| GroupId::parse(&id('S', n)))
                .collect(),
            min_approvals: 40,
            ..LevelRule::default()
        };
        let policy = Policy {
            levels: [rule.clone(), rule.clone(), rule.clone(), rule],
            ..Policy::default()
        };
        let mention = (0..20).filter_map(|n| Mention::parse(&id('S', n)));
        (policy, mention.collect())
    }

    #[test]
    fn every_message_in_every_state_passes_whatever_its_texts_are() {
        let (named, mention) = crowd();
        let mut open = Policy::default();
        open.levels[3].min_approvals = 40;
        for piece in [
            "x", "x\n", "\"", "\\", "<&>", "\u{1}", "/", "é", "一", "🔥", "e\u{301}", "\u{202e}",
        ] {
            let mut asked = Vec::new();
            let pending = hostile(piece, &json!({ "reason": null }));
            for policy in [&named, &open] {
                let asking = Asking {
                    policy,
                    mention: &mention,
                };
                asked.push(Message::request(&pending, asking, Occasion::Posted));
                asked.push(Message::request(&pending, asking, Occasion::Updated));
            }
            let voted = asked[3]
                .blocks
                .iter()
                .any(|block| block.to_string().contains("of 40)"));
            assert!(voted, "{piece:?}");
            asked.push(Message::reminder(&pending, &mention));
            asked.push(Message::retired(&pending));
            asked.push(mention::status(&pending));
            let many: Vec<Approval> = std::iter::repeat_n(pending.clone(), 25).collect();
            asked.push(mention::pending(&many));
            for status in ["approved", "denied", "expired", "cancelled"] {
                let time = "2024-01-15T15:30:45Z";
                for executed in [Value::Null, time.into()] {
                    let fields =
                        json!({ "status": status, "decidedAt": time, "executedAt": executed });
                    let decided = hostile(piece, &fields);
                    asked.extend([Message::outcome(&decided), mention::status(&decided)]);
                }
            }
            for (n, message) in asked.iter().enumerate() {
                let body = json!({ "text": message.text, "blocks": message.blocks });
                assert_eq!(check_message(&body), Ok(()), "{piece:?} {n}");
            }
            assert_eq!(
                check_view("home", &home::view(&many[..1])),
                Ok(()),
                "{piece:?}"
            );
            let subject = Subject {
                id: pending.id().clone(),
                route: Route::default(),
                seen: Some(pending.digest()),
                may_precede_file: true,
            };
            let dialog = ask_why(&subject, Some(pending.operation()));
            assert_eq!(check_view("modal", &dialog), Ok(()), "{piece:?}");
            let late = Objection::Final {
                status: Status::Denied,
                by: pending.decided_by(),
                at: None,
            };
            let word = private(&Notice::Refused(&late));
            assert_eq!(check_message(&json!({ "text": word })), Ok(()), "{piece:?}");
        }
    }

    #[test]
    fn a_command_that_may_be_asked_for_is_shown_whole_beside_all_else() {
        let (policy, mention) = crowd();
        let asking = Asking {
            policy: &policy,
            mention: &mention,
        };
        for (piece, shown) in [
            ("x", 3999),
            ("'", 2001),
            ("<", 1000),
            ("é", 1160),
            ("🔥", 580),
        ] {
            let command = |count| json!({ "command": piece.repeat(count), "reason": null });
            let fits = hostile("🔥", &command(shown));
            assert!(Message::has_room_for_command(&fits), "{piece}");
            assert!(!Message::has_room_for_command(&hostile(
                "🔥",
                &command(4001)
            )));
            for occasion in [Occasion::Posted, Occasion::Updated] {
                let message = Message::request(&fits, asking, occasion);
                let blocks = Value::from(message.blocks);
                let whole = format!("\"{}\"", piece.repeat(shown));
                assert!(blocks.to_string().contains(&whole), "{piece}");
                assert_eq!(
                    check_message(&json!({ "blocks": blocks })),
                    Ok(()),
                    "{piece}"
                );
            }
        }
    }

    #[test]
    fn a_long_way_back_is_shown_whole_where_there_is_room() {
        let long = "r".repeat(3900);
        let document = json!({ "id": "apr-1", "operation": "scale", "status": "approved",
            "command": ["x".repeat(3900)], "rollbackCommand": long });
        let id = ApprovalId::parse("apr-1").unwrap();
        let approval = Approval::parse(&id, document.to_string().as_bytes()).unwrap();
        let blocks = Value::from(Message::outcome(&approval).blocks);
        assert!(blocks.to_string().contains(&long));
        assert_eq!(check_message(&json!({ "blocks": blocks })), Ok(()));
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
