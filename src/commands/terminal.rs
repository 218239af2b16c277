//! What a person looks at. What came from outside is harmless before it is printed.

use crate::approval::Approval;
use crate::complaint::PrintableJson;

/// The document as it is stored, with a line's end.
pub(super) fn json(approval: &Approval) -> String {
    let text = approval.to_bytes();
    PrintableJson(&String::from_utf8_lossy(&text)).to_string()
}
