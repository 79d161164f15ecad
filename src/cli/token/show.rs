//! What a token is and says, for a person or a program. Limits: nothing is verified, and the signature, which completes
//! a live credential, is never shown.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::TokenError;
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::jose::{Jws, TokenKind, token_hash};
use crate::authorize::json;

/// A token taken apart.
pub(super) struct Shown {
    kind: Option<TokenKind>,
    /// Why it is not one of its kind as strictly as a gate reads it.
    problem: Option<String>,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    hash: Digest,
}

impl Shown {
    /// Takes any compact JWS with a JSON payload apart.
    pub(super) fn of(token: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, _signature] = parts[..] else {
            return Err(TokenError::NoToken("it does not have three parts"));
        };
        let header =
            part(header).ok_or(TokenError::NoToken("its first part is no JSON object in base64url"))?;
        let claims =
            part(payload).ok_or(TokenError::NoToken("its second part is no JSON object in base64url"))?;
        let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default();
        let kind = TokenKind::ALL.into_iter().find(|kind| {
            typ.eq_ignore_ascii_case(kind.typ())
                || typ.eq_ignore_ascii_case(&format!("application/{}", kind.typ()))
        });
        let problem = kind.and_then(|kind| Jws::parse(token.as_bytes(), kind).err()).map(|e| e.to_string());
        Ok(Self { kind, problem, header, claims, hash: token_hash(token.as_bytes()) })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "kind": self.kind.map(TokenKind::header_name), "header": self.header, "claims": self.claims,
            "hash": self.hash.to_string(), "problem": self.problem, "verified": false,
        })
    }

    /// For a person: what it is, its header and claims, and its times in words.
    pub(super) fn write(&self, now: UnixMillis, out: &mut dyn Write) -> io::Result<()> {
        let what = match self.kind {
            Some(TokenKind::WorkloadIdentity) => "a workload identity token (WIT): who sends",
            Some(TokenKind::WorkloadProof) => {
                "a workload proof token (WPT): that the sender wrote one record"
            }
            Some(TokenKind::Transaction) => "a transaction token (Txn-Token): on whose behalf",
            Some(TokenKind::Countersignature) => "a countersignature: what a gate let through",
            Some(TokenKind::StepUpGrant) => "a step-up grant: the answer to a challenge",
            None => "a token of no kind that a gate knows",
        };
        writeln!(out, "{what}; not verified")?;
        if let Some(problem) = &self.problem {
            writeln!(out, "malformed: {problem}")?;
        }
        // JSON escapes control characters, so nothing in a token reaches the terminal raw.
        writeln!(out, "header  {}", Value::Object(self.header.clone()))?;
        writeln!(out, "claims  {:#}", Value::Object(self.claims.clone()))?;
        for (name, words) in [("iat", "issued"), ("nbf", "good from"), ("exp", "good until")] {
            if let Some(seconds) = self.claims.get(name).and_then(Value::as_f64) {
                writeln!(out, "{name:<7} {words} {}", moment(seconds, now))?;
            }
        }
        writeln!(out, "hash    {} (what a proof binds)", self.hash)
    }
}

fn part(text: &str) -> Option<Map<String, Value>> {
    json::parse_object(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn moment(seconds: f64, now: UnixMillis) -> String {
    let Ok(at) = SignedDuration::try_from_secs_f64(seconds)
        .map_err(drop)
        .and_then(|since| Timestamp::from_duration(since).map_err(drop))
    else {
        return "a moment that no calendar has".to_owned();
    };
    // The difference of two moments of the calendar fits, so this loses nothing.
    let away = (seconds - now.as_seconds()) as i64;
    let words = duration(away.unsigned_abs());
    let at = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    if away >= 0 { format!("{at}, in {words}") } else { format!("{at}, {words} ago") }
}

/// The two largest units of a duration.
fn duration(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut rest = seconds;
    let mut words: Vec<String> = Vec::new();
    for (name, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 && words.len() < 2 {
            words.push(format!("{count} {name}"));
        }
    }
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::jose::{Algorithm, SigningKey};

    const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

    fn shown(token: &str) -> String {
        let mut out = Vec::new();
        Shown::of(token).unwrap_or_else(|e| panic!("{e}")).write(NOW, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_token_is_named_dated_and_shown_without_its_signature() {
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[1; 32], Some("k")).unwrap();
        let claims = json!({"sub": "al\u{1b}[2Jice", "iat": 1_893_455_000, "exp": 1_893_459_660.5});
        let token = key.sign(TokenKind::Transaction, &claims).unwrap();
        let text = shown(&token);
        assert!(text.starts_with("a transaction token (Txn-Token)"), "{text}");
        assert!(text.contains("exp     good until 2030-01-01 01:01:00 UTC, in 1 h 1 min"), "{text}");
        assert!(text.contains("iat     issued 2029-12-31 23:43:20 UTC, 16 min 40 s ago"), "{text}");
        assert!(text.contains(&token_hash(token.as_bytes()).to_string()));
        assert!(!text.contains('\u{1b}'), "a terminal would obey it");
        let (_, signature) = token.rsplit_once('.').unwrap();
        assert!(
            !text.contains(signature)
                && !Shown::of(&token).map(|s| s.json().to_string()).unwrap_or_default().contains(signature)
        );
    }

    #[test]
    fn other_tokens_are_shown_and_what_a_gate_minds_is_said() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let other = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(r#"{"exp":1e300}"#));
        let text = shown(&other);
        assert!(text.contains("no kind that a gate knows") && text.contains("no calendar"), "{text}");
        let bad = format!("{}.{}.AQ", encode(r#"{"alg":"ES256","typ":"wit+jwt","jku":"x"}"#), encode("{}"));
        assert!(shown(&bad).contains("malformed: the JOSE header parameter `jku`"), "{}", shown(&bad));
        for no in ["", "a.b", "a.b.c", &encode("{}")] {
            assert!(matches!(Shown::of(no), Err(TokenError::NoToken(_))), "{no}");
        }
    }
}
