//! The dialog that asks why a request is denied.
//!
//! Sources: <https://docs.slack.dev/surfaces/modals> and
//! <https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload>

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::text::{cut, plain};
use crate::approval::{ApprovalId, Digest, Route};

/// Our dialog among all views.
pub(super) const CALLBACK: &str = "denial_reason";
/// The block and the action of its one input.
pub const INPUT: &str = "reason";
/// Characters of a reason.
const LONGEST: usize = 1000;
/// Characters of the operation that the dialog repeats.
const OPERATION: usize = 500;

/// What the dialog is about. Slack keeps it for us and sends it back with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    pub id: ApprovalId,
    /// The message whose button was clicked.
    #[serde(flatten)]
    pub route: Route,
    /// What that message showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Digest>,
    /// Whether the request's file may come after its message.
    #[serde(default)]
    pub may_precede_file: bool,
}

/// The view that asks why; `operation` is what would be denied, as far as it is known.
pub fn ask_why(subject: &Subject, operation: Option<&str>) -> Value {
    let mut blocks = Vec::new();
    if let Some(operation) = operation {
        let operation = cut(&format!("Operation: {operation}"), OPERATION);
        blocks.push(json!({ "type": "section", "text": plain(&operation) }));
    }
    blocks.push(
        json!({ "type": "input", "block_id": INPUT, "label": plain("Why?"),
        "element": { "type": "plain_text_input", "action_id": INPUT, "multiline": true,
            "min_length": 1, "max_length": LONGEST } }),
    );
    json!({ "type": "modal", "callback_id": CALLBACK, "title": plain("Deny request"),
        "submit": plain("Deny"), "close": plain("Cancel"), "blocks": blocks,
        "private_metadata": json!(subject).to_string() })
}
