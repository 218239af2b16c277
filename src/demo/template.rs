//! JSON written down as Slack documents it, with blanks to fill in.
//!
//! `json!` makes code of each field, several times the size of such a text; nothing here is done often.

use serde_json::Value;

use super::people::{APP, BOT, CHANNEL, CHANNEL_NAME, TEAM};

/// Blanks that every template may have.
const WORKSPACE: [(&str, &str); 5] = [
    ("$app", APP),
    ("$bot", BOT),
    ("$channel", CHANNEL),
    ("$channel name", CHANNEL_NAME),
    ("$team", TEAM),
];

/// The document of a template, where a text that begins with `$` is a blank. What is filled in stays a text, whatever
/// is in it.
pub(super) fn filled(template: &str, blanks: &[(&str, &str)]) -> Value {
    let mut document = serde_json::from_slice(template.as_bytes()).unwrap_or_default();
    debug_assert_ne!(document, Value::Null, "{template} is no JSON");
    fill(&mut document, blanks);
    document
}

/// Gives an object the fields of a filled template as well.
pub(super) fn extend(object: &mut Value, template: &str, blanks: &[(&str, &str)]) {
    if let Value::Object(fields) = filled(template, blanks) {
        for (name, value) in fields {
            object[name] = value;
        }
    }
}

fn fill(value: &mut Value, blanks: &[(&str, &str)]) {
    match value {
        Value::String(text) if text.starts_with('$') => {
            let mut known = blanks.iter().chain(&WORKSPACE);
            let found = known.find(|(blank, _)| blank == text);
            debug_assert!(found.is_some(), "nothing is known for {text}");
            if let Some((_, filling)) = found {
                (*filling).clone_into(text);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, blanks)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill(field, blanks)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_filled_into_a_blank_is_a_text_and_no_template() {
        let hostile = r#"$bot", "admin": "yes"#;
        let template = r#"{ "by": "$who", "in": ["$channel name", { "n": 1 }], "app": "$app" }"#;
        let mut document = filled(template, &[("$who", hostile)]);
        let expected = json!({ "by": hostile, "in": [CHANNEL_NAME, { "n": 1 }], "app": APP });
        assert_eq!(document, expected);

        extend(
            &mut document,
            r#"{ "by": "$who", "to": null }"#,
            &[("$who", "$bot")],
        );
        let both =
            json!({ "by": "$bot", "in": [CHANNEL_NAME, { "n": 1 }], "app": APP, "to": null });
        assert_eq!(document, both);
    }
}
