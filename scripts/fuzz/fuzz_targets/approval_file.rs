//! A file that any program may have dropped: what is read is written so that it reads the same, and
//! whatever it says can be shown in Slack.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runbook::approval::{Approval, ApprovalId};
use runbook::slack::message::Message;

fuzz_target!(|bytes: &[u8]| {
    for id in ["apr-abc123", "a"] {
        let id = ApprovalId::parse(id).expect("it is an id");
        let Ok(approval) = Approval::parse(&id, bytes) else {
            continue;
        };
        let written = approval.to_bytes();
        let again = Approval::parse(&id, &written).expect("what was written can be read");
        assert_eq!(again.to_bytes(), written);
        assert_eq!(again.status(), approval.status());
        assert_eq!(again.risk(), approval.risk());
        assert_eq!(again.operation(), approval.operation());
        assert_eq!(again.expires_at(), approval.expires_at());
        assert_eq!(again.owed().count(), approval.owed().count());
        let _ = Message::outcome(&approval);
    }
});
