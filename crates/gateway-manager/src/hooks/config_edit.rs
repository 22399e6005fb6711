//! Changing a few settings in the text of a configuration file and nothing else: comments, order and layout stay as they are.
//!
//! The file is JSON5. What is to be changed is decided on its value; the change is made in its text; and the text that comes of it is read
//! once more and has to mean exactly what was decided. Where it does not, nothing is written.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::{Map, Value};

/// Another file of the configuration: what is missing here may be there.
const INCLUDE: &str = "$include";

/// What a configuration should hold.
#[derive(Clone, Default)]
pub(super) struct Wishes {
    pub(super) sanitize_skills: bool,
    pub(super) local_mode: bool,
    pub(super) browser_defaults: bool,
    pub(super) token: Option<String>,
}

/// A configuration cannot be changed. No variant holds a part of the text: there are secrets in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    #[error("it cannot be read as JSON5")]
    Unreadable,
    #[error("its setting {0} is not an object")]
    NotAnObject(&'static str),
    #[error("it cannot be changed without disturbing the rest of it")]
    Intricate,
}

/// One change, by the names that lead to it.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    Set(&'static [&'static str], Value),
    Remove(&'static [&'static str]),
}

/// The text as it should be; `None` when it is so already.
pub(super) fn edited(text: &str, wishes: &Wishes) -> Result<Option<String>, EditError> {
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let before: Value = json5::from_str(text).map_err(|_| EditError::Unreadable)?;
    let Value::Object(settings) = &before else {
        return Err(EditError::Unreadable);
    };
    let changes = changes(settings, wishes)?;
    if changes.is_empty() {
        return Ok(None);
    }
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|_| EditError::Intricate)?;
    let object = root.object_value().ok_or(EditError::Intricate)?;
    let comments_before = comments(root.children());
    let mut wanted = before.clone();
    for change in &changes {
        change_text(&object, change).ok_or(EditError::Intricate)?;
        change_value(&mut wanted, change).ok_or(EditError::Intricate)?;
    }
    // A comment may hang on what was removed.
    if comments(root.children()) != comments_before {
        return Err(EditError::Intricate);
    }
    let after = root.to_string();
    if json5::from_str::<Value>(&after).ok().as_ref() != Some(&wanted) {
        return Err(EditError::Intricate);
    }
    Ok(Some(format!("{mark}{after}")))
}

/// All comments, in their order.
fn comments(nodes: Vec<CstNode>) -> Vec<String> {
    let of = |node: CstNode| match node.as_comment() {
        Some(comment) => vec![comment.raw_value()],
        None => comments(node.children()),
    };
    nodes.into_iter().flat_map(of).collect()
}

fn changes(settings: &Map<String, Value>, wishes: &Wishes) -> Result<Vec<Change>, EditError> {
    let mut changes = Vec::new();
    if wishes.sanitize_skills
        && let Some(Value::Object(skills)) = settings.get("skills")
    {
        // A former application wrote these; OpenClaw refuses a configuration with them.
        for (name, path) in [
            ("enabled", &["skills", "enabled"] as &'static [&'static str]),
            ("disabled", &["skills", "disabled"]),
        ] {
            if skills.contains_key(name) {
                changes.push(Change::Remove(path));
            }
        }
    }
    let mut default =
        |section: Option<&Map<String, Value>>, path: &'static [&'static str], value: Value| {
            let is_known = !settings.contains_key(INCLUDE)
                && section.is_none_or(|section| !section.contains_key(INCLUDE));
            let [.., name] = path else { return };
            if is_known && section.is_none_or(|section| !section.contains_key(*name)) {
                changes.push(Change::Set(path, value));
            }
        };
    let gateway = section(settings, "gateway")?;
    if wishes.local_mode {
        default(gateway, &["gateway", "mode"], "local".into());
    }
    if wishes.browser_defaults {
        let browser = section(settings, "browser")?;
        default(browser, &["browser", "enabled"], true.into());
        default(browser, &["browser", "defaultProfile"], "openclaw".into());
    }
    if let Some(token) = &wishes.token {
        let auth = match gateway {
            Some(gateway) => match gateway.get("auth") {
                None => None,
                Some(Value::Object(auth)) => Some(auth),
                Some(_) => return Err(EditError::NotAnObject("gateway.auth")),
            },
            None => None,
        };
        changes.extend(token_changes(settings, gateway, auth, token));
    }
    Ok(changes)
}

/// How the token gets into the configuration. Whoever chose another way to sign in, or another source for the token, keeps it.
fn token_changes(
    settings: &Map<String, Value>,
    gateway: Option<&Map<String, Value>>,
    auth: Option<&Map<String, Value>>,
    token: &str,
) -> Vec<Change> {
    let has = |section: Option<&Map<String, Value>>, name| {
        section.is_some_and(|section| section.contains_key(name))
    };
    let is_elsewhere = has(Some(settings), INCLUDE) || has(gateway, INCLUDE) || has(auth, INCLUDE);
    let get = |name| auth.and_then(|auth| auth.get(name));
    let is_token_mode = match get("mode") {
        None => !has(auth, "password"),
        Some(mode) => mode == "token",
    };
    let is_ours = match get("token") {
        None => false,
        // Filled in from the environment, or kept in a store of secrets.
        Some(Value::String(present)) if present.contains("${") => return Vec::new(),
        Some(Value::String(present)) => present == token,
        Some(_) => return Vec::new(),
    };
    if is_elsewhere || !is_token_mode {
        return Vec::new();
    }
    let mut changes = Vec::new();
    if get("mode").is_none() {
        changes.push(Change::Set(&["gateway", "auth", "mode"], "token".into()));
    }
    if !is_ours {
        changes.push(Change::Set(&["gateway", "auth", "token"], token.into()));
    }
    changes
}

fn section<'a>(
    settings: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a Map<String, Value>>, EditError> {
    match settings.get(name) {
        None => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(_) => Err(EditError::NotAnObject(name)),
    }
}

/// Makes the change in the text; `None` where it does not fit.
fn change_text(root: &CstObject, change: &Change) -> Option<()> {
    let (Change::Set(path, _) | Change::Remove(path)) = change;
    let (name, way) = path.split_last()?;
    let mut object = root.clone();
    for step in way {
        object = match change {
            Change::Set(..) => object.object_value_or_create(step)?,
            Change::Remove(_) => object.object_value(step)?,
        };
    }
    match (change, object.get(name)) {
        (Change::Set(_, value), Some(property)) => property.set_value(input(value)?),
        (Change::Set(_, value), None) => {
            object.append(name, input(value)?);
        }
        (Change::Remove(_), Some(property)) => property.remove(),
        (Change::Remove(_), None) => return None,
    }
    Some(())
}

fn input(value: &Value) -> Option<CstInputValue> {
    Some(match value {
        Value::Bool(flag) => CstInputValue::Bool(*flag),
        Value::String(text) => CstInputValue::String(text.clone()),
        _ => return None,
    })
}

/// The same change on the value.
fn change_value(root: &mut Value, change: &Change) -> Option<()> {
    let (Change::Set(path, _) | Change::Remove(path)) = change;
    let (name, way) = path.split_last()?;
    let mut object = root.as_object_mut()?;
    for step in way {
        let next = object
            .entry(*step)
            .or_insert_with(|| Value::Object(Map::new()));
        object = next.as_object_mut()?;
    }
    match change {
        Change::Set(_, value) => {
            object.insert((*name).to_owned(), value.clone());
        }
        Change::Remove(_) => {
            object.remove(*name);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Wishes {
        Wishes {
            sanitize_skills: true,
            local_mode: true,
            browser_defaults: true,
            token: Some("t\"1".to_owned()),
        }
    }

    fn only(change: impl FnOnce(&mut Wishes)) -> Wishes {
        let mut wishes = Wishes::default();
        change(&mut wishes);
        wishes
    }

    #[test]
    fn what_is_changed_and_what_stays() {
        let skills = only(|wishes| wishes.sanitize_skills = true);
        let mode = only(|wishes| wishes.local_mode = true);
        let browser = only(|wishes| wishes.browser_defaults = true);
        let token = only(|wishes| wishes.token = Some("t".to_owned()));
        let done = r#"{"gateway":{"mode":"remote","auth":{"mode":"token","token":"t\"1"}},"browser":{"enabled":false,"defaultProfile":"x"}}"#;
        // The wishes, the text before, the value after; `None`: nothing is changed.
        let table = [
            (Wishes::default(), "{skills: {enabled: []}}", None),
            (all(), done, None),
            (skills.clone(), "{}", None),
            (skills.clone(), "{skills: 7}", None),
            (skills.clone(), "{skills: {entries: {enabled: true}}}", None),
            (
                skills,
                "{skills: {enabled: [1], 'disabled': {}, load: 1}, enabled: 2}",
                Some(r#"{"skills":{"load":1},"enabled":2}"#),
            ),
            (mode.clone(), "{}", Some(r#"{"gateway":{"mode":"local"}}"#)),
            (
                mode.clone(),
                "{gateway: {port: 1,},}",
                Some(r#"{"gateway":{"port":1,"mode":"local"}}"#),
            ),
            (mode.clone(), "{gateway: {mode: null}}", None),
            (mode.clone(), "{gateway: {$include: './g.json5'}}", None),
            (mode, "{$include: './g.json5'}", None),
            (
                browser.clone(),
                "{browser: {enabled: false}}",
                Some(r#"{"browser":{"enabled":false,"defaultProfile":"openclaw"}}"#),
            ),
            (
                browser,
                "{}",
                Some(r#"{"browser":{"enabled":true,"defaultProfile":"openclaw"}}"#),
            ),
            (
                token.clone(),
                "{}",
                Some(r#"{"gateway":{"auth":{"mode":"token","token":"t"}}}"#),
            ),
            (
                token.clone(),
                "{gateway: {auth: {token: 'old', x: 1}}}",
                Some(r#"{"gateway":{"auth":{"mode":"token","token":"t","x":1}}}"#),
            ),
            (
                token.clone(),
                "{gateway: {auth: {mode: 'token'}}}",
                Some(r#"{"gateway":{"auth":{"mode":"token","token":"t"}}}"#),
            ),
            // The user's own choices.
            (
                token.clone(),
                "{gateway: {auth: {mode: 'password', password: 'p'}}}",
                None,
            ),
            (
                token.clone(),
                "{gateway: {auth: {mode: 'password', token: 'old'}}}",
                None,
            ),
            (token.clone(), "{gateway: {auth: {password: 'p'}}}", None),
            (token.clone(), "{gateway: {auth: {mode: 'none'}}}", None),
            (
                token.clone(),
                "{gateway: {auth: {token: '${MY_TOKEN}'}}}",
                None,
            ),
            (
                token.clone(),
                "{gateway: {auth: {token: {source: 'file'}}}}",
                None,
            ),
            (token, "{gateway: {auth: {$include: './a.json5'}}}", None),
        ];
        for (wishes, text, expected) in table {
            let after = edited(text, &wishes).unwrap();
            let value = after
                .as_deref()
                .map(|text| json5::from_str::<Value>(text).unwrap());
            let expected = expected.map(|text| serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(value, expected, "{text}");
            if let Some(after) = after {
                assert_eq!(edited(&after, &wishes), Ok(None), "{after}");
            }
        }
    }

    #[test]
    fn comments_order_and_layout_stay() {
        let before = "\u{feff}// mine\r\n{\r\n  zebra: 0x10, // first\r\n  /* the token */ gateway: { auth: { 'token': 'old' /* old */ } },\r\n\
                      \x20 skills: {\r\n    // why\r\n    enabled: true,\r\n    load: +1.,\r\n  },\r\n}\r\n// end\r\n";
        let after = edited(before, &all()).unwrap().unwrap();
        assert_eq!(
            after,
            "\u{feff}// mine\r\n{\r\n  zebra: 0x10, // first\r\n  /* the token */ gateway: {\r\n    auth: {\r\n      'token': \"t\\\"1\", /* old */\r\n      \"mode\": \"token\"\r\n    },\r\n    \"mode\": \"local\"\r\n  },\r\n\
             \x20 skills: {\r\n    // why\r\n    load: +1.,\r\n  },\r\n  \"browser\": {\r\n    \"enabled\": true,\r\n    \"defaultProfile\": \"openclaw\"\r\n  },\r\n}\r\n// end\r\n"
        );
    }

    #[test]
    fn what_cannot_be_changed_safely_is_left_alone() {
        for (text, expected) in [
            ("", EditError::Unreadable),
            ("{", EditError::Unreadable),
            ("[]", EditError::Unreadable),
            ("{gateway: []}", EditError::NotAnObject("gateway")),
            (
                "{gateway: {auth: 1}}",
                EditError::NotAnObject("gateway.auth"),
            ),
            ("{browser: 'x'}", EditError::NotAnObject("browser")),
            // The comments would go with what they are about.
            ("{skills: {enabled: /* mine */ true}}", EditError::Intricate),
            // The last one counts, and the first one would be changed.
            ("{gateway: {mode: 'a'}, gateway: {}}", EditError::Intricate),
        ] {
            let outcome = edited(text, &all());
            assert_eq!(outcome, Err(expected), "{text}");
        }
    }

    /// Values as they occur in configurations, in any of the ways to write them.
    fn json5_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?[0-9]{1,3}",
            "'[a-z /*]{0,6}'",
            "\"[a-z ]{0,6}\"",
            Just("null".to_owned()),
            Just("true".to_owned())
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = prop_oneof![
                Just("gateway".to_owned()),
                Just("'auth'".to_owned()),
                Just("\"mode\"".to_owned()),
                Just("token".to_owned()),
                Just("skills".to_owned()),
                Just("enabled".to_owned()),
                Just("browser".to_owned()),
                "[a-z]{1,4}",
            ];
            let space = prop_oneof![
                Just(""),
                Just(" "),
                Just("\n"),
                Just("/* c */"),
                Just("// c\n")
            ];
            let member = (name, space.clone(), inner.clone(), space)
                .prop_map(|(name, a, value, b)| format!("{a}{name}:{b}{value}"));
            let end = prop_oneof![Just(""), Just(","), Just("\n")];
            (proptest::collection::vec(member, 1..4), end)
                .prop_map(|(members, end)| format!("{{{}{end}}}", members.join(",")))
        })
    }

    proptest! {
        #[test]
        fn nothing_but_the_wishes_changes(text in json5_text()) {
            let count = |text: &str, what| text.matches(what).count();
            if let Ok(Some(after)) = edited(&text, &all()) {
                // What was decided is what it says, and it says it for good.
                prop_assert_eq!(edited(&after, &all()), Ok(None));
                let (before, value): (Value, Value) = (json5::from_str(&text).unwrap(), json5::from_str(&after).unwrap());
                for (name, old) in before.as_object().unwrap() {
                    if !["gateway", "skills", "browser"].contains(&name.as_str()) {
                        prop_assert_eq!(&value[name], old);
                    }
                }
                prop_assert_eq!(count(&after, "/* c */"), count(&text, "/* c */"));
                prop_assert_eq!(count(&after, "// c"), count(&text, "// c"));
            }
        }
    }
}
