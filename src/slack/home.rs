//! The Home tab: what one person may decide, with the same details and buttons as in the messages.
//! What came from a file stands in `plain_text` or in a preformatted block, as there.
//!
//! Source: <https://docs.slack.dev/reference/views/home-tab-views>

use serde_json::{Value, json};

use super::message::{buttons, details, header};
use super::room::{Room, fit};
use super::text::plain;
use crate::approval::{Approval, Digest};

/// Blocks of a view.
const BLOCKS: usize = 100;
/// Bytes of JSON that we grant the requests in a view. Slack refuses a view from 250 kB on, and may
/// count the three bytes of a letter beyond ASCII as six, or two as six: `\u4e00`.
const BYTES: usize = 80_000;

/// The view that shows these requests, as many as fit in this order; the others are counted.
pub fn view(approvals: &[Approval]) -> Value {
    let mut blocks = vec![header("🔐 Waiting for your decision")];
    let (mut shown, mut bytes) = (0, 0);
    for approval in approvals {
        let request = request(approval);
        bytes += request
            .iter()
            .map(|block| block.to_string().len())
            .sum::<usize>();
        // One block is kept for the count.
        if blocks.len() + request.len() >= BLOCKS || bytes > BYTES {
            break;
        }
        blocks.extend(request);
        shown += 1;
    }
    let last = match approvals.len() - shown {
        0 if shown > 0 => None,
        0 => Some("Nothing waits for your decision.".to_owned()),
        rest => Some(format!("{rest} more are not shown here.")),
    };
    blocks.extend(last.map(|last| json!({ "type": "section", "text": plain(&last) })));
    json!({ "type": "home", "blocks": blocks })
}

fn request(approval: &Approval) -> Vec<Value> {
    let shown = approval.digest();
    fit(|room| request_in(room, approval, shown), |blocks| blocks)
}

fn request_in(room: Room, approval: &Approval, shown: Digest) -> Vec<Value> {
    let mut blocks = Vec::new();
    details(approval, room, &mut blocks, &mut Vec::new());
    blocks.push(buttons(approval, shown, room));
    blocks.push(json!({ "type": "divider" }));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approval::ApprovalId;

    fn approvals(count: usize, changes: &Value) -> Vec<Approval> {
        let approval = |n| {
            let id = ApprovalId::parse(&format!("apr-{n}")).unwrap();
            let mut document = json!({ "id": id, "operation": "scale", "status": "pending" });
            for (key, value) in changes.as_object().unwrap() {
                document[key] = value.clone();
            }
            Approval::parse(&id, document.to_string().as_bytes()).unwrap()
        };
        (0..count).map(approval).collect()
    }

    fn shown(view: &Value) -> usize {
        let blocks = view["blocks"].as_array().unwrap();
        let buttons = blocks.iter().filter(|block| block["type"] == "actions");
        buttons.count()
    }

    #[test]
    fn what_fits_is_shown_whole_and_the_rest_is_counted() {
        for (count, more) in [(1, 0), (32, 0), (33, 1), (1000, 968)] {
            let view = view(&approvals(count, &json!({})));
            assert_eq!(shown(&view), count - more);
            let blocks = view["blocks"].as_array().unwrap();
            assert!(blocks.len() <= BLOCKS);
            let last = format!("{more} more are not shown here.");
            let told = blocks.last().unwrap()["text"]["text"] == last.as_str();
            assert_eq!(told, more > 0, "{count}");
        }
    }

    #[test]
    fn the_largest_requests_stay_below_slacks_limit_and_one_of_them_always_fits() {
        for letter in ["<", "é", "一", "🔥", "\\"] {
            let long = letter.repeat(20_000);
            let args: Value = json!({ "operation": long, "description": long, "command": [long],
                "requestedBy": long, "investigationId": long, "resource": long,
                "estimatedImpact": long, "directory": long, "rollbackCommand": long });
            let view = view(&approvals(30, &args));
            assert!(shown(&view) >= 1 && shown(&view) < 30, "{letter}");
            let text = view.to_string();
            let units = |c: char| if c.is_ascii() { 1 } else { 6 * c.len_utf16() };
            let size: usize = text.chars().map(units).sum();
            assert!(size < 250_000, "{letter}: {size}");
        }
    }

    #[test]
    fn an_empty_home_says_so() {
        let view = view(&[]);
        assert_eq!(view["blocks"].as_array().unwrap().len(), 2);
        assert!(
            view.to_string()
                .contains("Nothing waits for your decision.")
        );
    }
}
