//! The annotations that mean something to a gate (contract, sections 7 and 10): `@id`, `@reason`, and `@step_up` with
//! what belongs to it. Limits: other annotations are the author's own and are left alone, but one that differs from
//! ours only in case or underscores is refused, for it would be ignored in silence.

use std::collections::BTreeMap;

use cedar_policy::Effect;

use super::answer::StepUp;
use crate::authorize::limits::{MAX_APPROVALS, MAX_STEP_UP_S};
use crate::authorize::step_up::sentence;

/// What the annotations of one policy say.
#[derive(Debug, Clone, Default)]
pub(super) struct Meta {
    pub(super) reason: Option<String>,
    pub(super) step_up: Option<StepUp>,
}

/// A mistake in an annotation: its key, what is wrong, and what to do.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) key: String,
    pub(super) message: String,
    pub(super) help: &'static str,
}

const OURS: [&str; 9] =
    ["id", "step_up", "approvals", "hold", "grant", "message", "acr", "max_age", "reason"];
const OF_STEP_UP: [&str; 6] = ["approvals", "hold", "grant", "message", "acr", "max_age"];
const HELP_LIFE: &str =
    "write a whole number and one of `s`, `m`, `h` and `d`, such as `30m`; at most 30 days";

const HELP_FIELDS: &str = "a field is `{sender}`, `{subject}`, `{route}`, `{transaction.id}`, `{action.name}`, `{resource.type}`, \
     `{resource.id}`, `{workflow.id}`, `{workflow.type}`, `{workflow.step}`, `{workflow.state}`, `{value.<path>}`, \
     `{action.properties.<path>}` or `{resource.properties.<path>}`; `{{` and `}}` are braces";
const HELP_ACR: &str = "at most 512 characters, as in `acr_values` of OpenID Connect";

/// Whether `text` can be a policy id or the name of a step-up: `[A-Za-z0-9._-]+`, at most 128.
pub(super) fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Reads the annotations of the policy with this id.
pub(super) fn read(id: &str, effect: Effect, annotations: &BTreeMap<&str, &str>) -> (Meta, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let mut mistake = |key: &str, message: String, help: &'static str| {
        mistakes.push(Mistake { key: key.to_owned(), message, help });
    };
    for key in annotations.keys() {
        let plain = key.replace('_', "").to_ascii_lowercase();
        let meant = OURS.iter().find(|ours| ours.replace('_', "") == plain && *ours != key);
        if let Some(meant) = meant {
            mistake(
                key,
                format!("`@{key}` means nothing, did you mean `@{meant}`"),
                "names of annotations are exact",
            );
        }
    }
    let reason = annotations.get("reason").map(|text| (*text).to_owned());
    if reason.as_deref().is_some_and(|text| !is_sentence(text)) {
        mistake(
            "reason",
            "`@reason` must hold 1 to 512 characters of text".to_owned(),
            "control characters are refused",
        );
    }
    let Some(&name) = annotations.get("step_up") else {
        for key in OF_STEP_UP.iter().filter(|key| annotations.contains_key(**key)) {
            mistake(
                key,
                format!("`@{key}` belongs to a policy with `@step_up`"),
                "add `@step_up(\"<name>\")`, or use `@reason` for a sentence about a refusal",
            );
        }
        return (Meta { reason, step_up: None }, mistakes);
    };
    if effect != Effect::Forbid {
        mistake(
            "step_up",
            "`@step_up` can only stand on a `forbid`".to_owned(),
            "say with a `forbid` what must not happen unless somebody approves of it",
        );
    }
    if !is_name(name) {
        mistake(
            "step_up",
            format!("`{name}` is no name for a step-up"),
            "a name is 1 to 128 of `A-Za-z0-9._-`",
        );
    }
    let approvals = annotations.get("approvals").map(|text| (*text, text.parse::<u32>()));
    if let Some((text, Err(_) | Ok(0) | Ok(MAX_APPROVALS_AND_ONE..))) = approvals {
        mistake(
            "approvals",
            format!("`{text}` is no number of approvals"),
            "write a whole number from 1 to 64",
        );
    }
    let mut life = |key: &str| {
        let text = annotations.get(key)?;
        let seconds = parse_life(text);
        if seconds.is_none() {
            mistake(key, format!("`{text}` is no duration for `@{key}`"), HELP_LIFE);
        }
        seconds
    };
    let (hold_s, grant_s, max_age_s) = (life("hold"), life("grant"), life("max_age"));
    let message = annotations.get("message").map(|text| (*text).to_owned());
    if message.as_deref().is_some_and(|text| !is_sentence(text)) {
        mistake(
            "message",
            "`@message` must hold 1 to 512 characters of text".to_owned(),
            "control characters are refused",
        );
    }
    if let Some(Err(problem)) = message.as_deref().map(sentence::check) {
        mistake("message", problem, HELP_FIELDS);
    }
    let acr_values = annotations.get("acr").map(|text| (*text).to_owned());
    if acr_values.as_deref().is_some_and(|text| !is_sentence(text)) {
        mistake("acr", "`@acr` must hold values of `acr`, separated by spaces".to_owned(), HELP_ACR);
    }
    let approvals = approvals.and_then(|(_, n)| n.ok()).unwrap_or(1);
    let step_up = StepUp {
        name: name.to_owned(),
        policy: id.to_owned(),
        message,
        approvals,
        hold_s,
        grant_s,
        acr_values,
        max_age_s,
    };
    (Meta { reason, step_up: Some(step_up) }, mistakes)
}

/// Makes it a step-up that only a fresh login discharges, since its policy looks at how the subject has logged in.
pub(super) fn of_login(step_up: &mut StepUp, annotations: &BTreeMap<&str, &str>) -> Option<Mistake> {
    step_up.approvals = 0;
    annotations.contains_key("approvals").then(|| Mistake {
        key: "approvals".to_owned(),
        message: "`@approvals` on a step-up that only a fresh login discharges".to_owned(),
        help: "leave it out, or ask for approvals in a policy of its own, which does not look at the login",
    })
}

const MAX_APPROVALS_AND_ONE: u32 = MAX_APPROVALS + 1;

/// A sentence goes into headers and logs, so it has no line breaks and an end.
fn is_sentence(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= 512 && !text.chars().any(char::is_control)
}

/// `30m` as seconds.
fn parse_life(text: &str) -> Option<u32> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = number.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=MAX_STEP_UP_S).contains(&seconds).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(effect: Effect, annotations: &[(&'static str, &'static str)]) -> Vec<String> {
        let annotations = annotations.iter().copied().collect();
        read("p", effect, &annotations).1.into_iter().map(|m| m.key).collect()
    }

    #[test]
    fn a_step_up_is_read_whole() {
        let annotations = [
            ("id", "big"),
            ("step_up", "manager"),
            ("approvals", "2"),
            ("hold", "30m"),
            ("grant", "90s"),
            ("message", "pay {value.amount}?"),
            ("acr", "phr phrh"),
            ("max_age", "5m"),
            ("owner", "team-a"),
        ];
        let (meta, mistakes) = read("big", Effect::Forbid, &annotations.into_iter().collect());
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let step_up = meta.step_up.unwrap();
        assert_eq!(
            (step_up.name.as_str(), step_up.policy.as_str(), step_up.approvals),
            ("manager", "big", 2)
        );
        assert_eq!((step_up.hold_s, step_up.grant_s), (Some(1800), Some(90)));
        assert_eq!((step_up.acr_values.as_deref(), step_up.max_age_s), (Some("phr phrh"), Some(300)));
    }

    #[test]
    fn mistakes_are_named_by_their_annotation() {
        assert_eq!(mistakes(Effect::Permit, &[("step_up", "x")]), ["step_up"]);
        assert_eq!(mistakes(Effect::Forbid, &[("step_up", "")]), ["step_up"]);
        assert_eq!(mistakes(Effect::Forbid, &[("step_up", "a b")]), ["step_up"]);
        for bad in ["", "0", "-1", "65", "two", "1.5", "+ 1"] {
            assert_eq!(
                mistakes(Effect::Forbid, &[("step_up", "x"), ("approvals", bad)]),
                ["approvals"],
                "{bad}"
            );
        }
        for bad in ["", "m", "0m", "-3m", "3", "3 m", "+3m", "1h30m", "31d", "99999999999d", "3ms"] {
            assert_eq!(mistakes(Effect::Forbid, &[("step_up", "x"), ("hold", bad)]), ["hold"], "{bad}");
        }
        assert_eq!(mistakes(Effect::Forbid, &[("approvals", "2"), ("grant", "1m")]), ["approvals", "grant"]);
        for bad in ["{", "{nobody}", "{value}"] {
            assert_eq!(mistakes(Effect::Forbid, &[("step_up", "x"), ("message", bad)]), ["message"], "{bad}");
        }
        assert_eq!(mistakes(Effect::Forbid, &[("step_up", "x"), ("max_age", "1w")]), ["max_age"]);
        assert_eq!(mistakes(Effect::Forbid, &[("step_up", "x"), ("acr", "")]), ["acr"]);
        assert_eq!(mistakes(Effect::Permit, &[("acr", "phr")]), ["acr"]);
        assert_eq!(mistakes(Effect::Forbid, &[("stepup", "x")]), ["stepup"]);
        assert_eq!(mistakes(Effect::Permit, &[("Reason", "x")]), ["Reason"]);
        assert_eq!(mistakes(Effect::Permit, &[("reason", "a\nb")]), ["reason"]);
    }
}
