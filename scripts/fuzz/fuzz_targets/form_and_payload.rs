//! What Slack signs: the form of an interaction, and the JSON of an event. JSON alone is put into a
//! form first, so that the fixtures are seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runbook::approval::ApprovalId;
use runbook::slack::event::Delivery;
use runbook::slack::interaction::{Interaction, is_ssl_check};

fuzz_target!(|bytes: &[u8]| {
    let read = |form: &[u8]| {
        let _ = is_ssl_check(form);
        if let Ok(Interaction::Click(click)) = Interaction::parse(form)
            && let Some(id) = ApprovalId::parse(&click.value)
        {
            let id = id.as_str();
            assert!(!id.is_empty() && id.len() <= 64 && !id.contains(['/', '.', '\0']));
        }
    };
    read(bytes);
    let _ = Delivery::parse(bytes);
    if let (Some(b'{'), Ok(json)) = (bytes.first(), std::str::from_utf8(bytes)) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        read(form.append_pair("payload", json).finish().as_bytes());
    }
});
