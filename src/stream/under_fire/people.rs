//! Who sends and who answers: records of every fate, signed once and used by every seed, and the tokens of approvers.
//! Limits: signed by EdDSA alone, so that the same seed gives the same bytes in every process.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::json;

use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::TokenKind;
use crate::authorize::record::Record;
use crate::authorize::step_up::Challenge;
use crate::authorize::testing::{ACCEPTED_S, Draft, Plan, key};

/// The keys that sign identities and transactions in this world.
pub(super) const ISSUER: &str = "other-domain-issuer";
pub(super) const TOKEN_SERVICE: &str = "other-domain-tts";
/// The issuer of approvers.
pub(super) const PEOPLE: &str = "https://login.example.com";
pub(super) const KEYS: [&str; 2] = ["k-0", "k-1"];
/// Values that the destination does not take, and that neither it nor the dead-letter topic takes.
pub(super) const REFUSED: &[u8] = b"{\"amount\":666}";
pub(super) const BARE: &[u8] = b"{\"amount\":667}";
/// What a revocation names, and the workflow that ends.
pub(super) const REVOKED: &str = "txn-revoked";
pub(super) const ENDED: &str = "wf-ended";

/// What a record asks for, or what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// Allowed.
    Small,
    /// Wants a manager.
    Large,
    /// Wants two officers.
    Huge,
    /// Allowed, and the destination does not take it.
    Refused,
    /// The same, and the dead-letter topic does not take it either.
    Bare,
    Frozen,
    Unpermitted,
    Broken,
    Unknown,
    Unlinked,
    Unsigned,
    Garbled,
    Swollen,
    Forged,
    Stranger,
    Elsewhere,
    Expired,
    Altered,
}

use Ask::{
    Altered, Bare, Broken, Elsewhere, Expired, Forged, Frozen, Garbled, Huge, Large, Refused, Small,
    Stranger, Swollen, Unknown, Unlinked, Unpermitted, Unsigned,
};

pub(super) const ASKS: [Ask; 18] = [
    Small,
    Large,
    Huge,
    Refused,
    Bare,
    Frozen,
    Unpermitted,
    Broken,
    Unknown,
    Unlinked,
    Unsigned,
    Garbled,
    Swollen,
    Forged,
    Stranger,
    Elsewhere,
    Expired,
    Altered,
];

impl Ask {
    /// Why its sender is not believed; its proof is not remembered.
    pub(super) fn unproven(self) -> Option<&'static str> {
        Some(match self {
            Unsigned => "context_missing",
            Garbled => "context_malformed",
            Swollen => "context_too_large",
            Forged => "signature_invalid",
            Stranger => "issuer_unknown",
            Elsewhere => "audience_mismatch",
            Expired => "token_expired",
            Altered => "proof_mismatch",
            _ => return None,
        })
    }

    /// Why it is denied before anybody's standing is looked at.
    pub(super) fn unlinked(self) -> Option<&'static str> {
        (self == Unlinked).then_some("chain_invalid")
    }

    /// Why it is denied whoever asks.
    pub(super) fn forbidden(self) -> Option<&'static str> {
        Some(match self {
            Frozen => "forbidden",
            Unpermitted => "not_permitted",
            Broken => "policy_error",
            Unknown => "request_invalid",
            _ => return None,
        })
    }

    /// Hold, life of a grant and approvals of what is asked about, in seconds.
    pub(super) fn step_up(self) -> Option<(i64, i64, usize)> {
        match self {
            Large => Some((600, 300, 1)),
            Huge => Some((900, 600, 2)),
            _ => None,
        }
    }

    /// Whether the destination takes it.
    pub(super) fn is_deliverable(self) -> bool {
        ![Refused, Bare].contains(&self)
    }

    fn value(self) -> &'static [u8] {
        match self {
            Refused => REFUSED,
            Bare => BARE,
            _ => b"{\"amount\":120}",
        }
    }

    fn invoice(self) -> &'static str {
        match self {
            Large => "large",
            Huge => "huge",
            Frozen => "frozen",
            Broken => "broken",
            _ => "small",
        }
    }
}

/// What stands behind a record, and may stop to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Behind {
    Nothing,
    /// A transaction that is revoked.
    Revocable,
    /// A workflow that ends.
    Ending,
}

/// A record as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) ask: Ask,
    pub(super) behind: Behind,
    pub(super) key: &'static str,
    pub(super) jti: String,
    /// The token that it brings as a grant.
    pub(super) grant: Option<usize>,
    pub(super) record: Record,
}

fn signed(
    ask: Ask,
    behind: Behind,
    key_name: &'static str,
    jti: String,
    grant: Option<(usize, &str)>,
) -> Sent {
    let mut plan = Plan {
        signed: ask != Unsigned,
        countersignature: ask == Unlinked,
        grant: grant.is_some(),
        ..Plan::default()
    };
    plan.record.key = Some(Bytes::from_static(key_name.as_bytes()));
    plan.record.value = Some(Bytes::from_static(ask.value()));
    let with = |draft: &mut Draft, name: &str| {
        draft.key = key(name);
        draft.head["alg"] = draft.key.algorithm().as_str().into();
        draft.head["kid"] = name.into();
    };
    let mut record = plan.build_with(|kind, draft| match kind {
        TokenKind::WorkloadIdentity => {
            with(draft, ISSUER);
            if ask == Stranger {
                draft.head["kid"] = "nobody".into();
            }
        }
        TokenKind::Transaction => {
            with(draft, TOKEN_SERVICE);
            if behind == Behind::Revocable {
                draft.claims["txn"] = REVOKED.into();
            }
            if ask == Swollen {
                draft.whole = Some(vec![b'x'; 9_000]);
            }
        }
        TokenKind::Countersignature => draft.key = key("workload"),
        TokenKind::StepUpGrant => draft.whole = grant.map(|(_, token)| token.as_bytes().to_vec()),
        TokenKind::WorkloadProof => {
            draft.claims["jti"] = jti.clone().into();
            draft.claims["resource"]["id"] = ask.invoice().into();
            if behind == Behind::Ending {
                draft.claims["workflow"]["id"] = ENDED.into();
            }
            match ask {
                Unpermitted => draft.claims["action"]["name"] = "look".into(),
                Unknown => draft.claims["action"]["name"] = "fly".into(),
                Garbled => draft.whole = Some(b"x.y.z".to_vec()),
                Forged => draft.key = key("gate"),
                Elsewhere => draft.claims["aud"] = "kafka://test/others".into(),
                Expired => {
                    draft.claims["iat"] = (ACCEPTED_S - 90).into();
                    draft.claims["exp"] = (ACCEPTED_S - 40).into();
                }
                _ => {}
            }
        }
    });
    if ask == Altered {
        record.value = Some(Bytes::from_static(b"{\"amount\":1}"));
    }
    Sent { ask, behind, key: key_name, jti, grant: grant.map(|(token, _)| token), record }
}

/// Every record that can be sent, signed once: of each kind with each key two, and those that somebody stands behind.
pub(super) fn pool() -> &'static [Sent] {
    static POOL: OnceLock<Vec<Sent>> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut pool = Vec::new();
        for ask in ASKS {
            let behind: &[Behind] = match ask {
                Small | Large => &[Behind::Nothing, Behind::Revocable, Behind::Ending],
                _ => &[Behind::Nothing],
            };
            for (behind, key) in behind.iter().flat_map(|behind| KEYS.map(|key| (*behind, key))) {
                for copy in 0..2 {
                    pool.push(signed(ask, behind, key, format!("{ask:?}-{behind:?}-{key}-{copy}"), None));
                }
            }
        }
        pool
    })
}

/// One of them: half of them are let through or asked about, since of those most can be said.
pub(super) fn pick(mut draw: impl FnMut(u64) -> u64) -> &'static Sent {
    let pool = pool();
    let of = |ask: Ask| pool.iter().filter(move |sent| sent.ask == ask);
    let ask = match draw(4) {
        0 => Large,
        1 => [Small, Huge][usize::try_from(draw(2)).unwrap()],
        _ => ASKS[usize::try_from(draw(ASKS.len() as u64)).unwrap()],
    };
    let index = usize::try_from(draw(of(ask).count() as u64)).unwrap();
    of(ask).nth(index).unwrap()
}

/// A record that brings a grant for what was asked about another.
pub(super) fn with_grant(ask: Ask, key: &'static str, jti: String, token: (usize, &str)) -> Sent {
    signed(ask, Behind::Nothing, key, jti, Some(token))
}

/// An approver's word, as it was given.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) who: &'static str,
    pub(super) approves: bool,
    /// Whether it is made out for what was asked.
    pub(super) fits: bool,
    pub(super) challenge: Challenge,
    pub(super) jti: String,
    /// When it was issued and when it expires.
    pub(super) issued: i64,
    pub(super) expires: i64,
}

/// What somebody says to a challenge.
pub(super) fn say(
    (who, approves, fits): (&'static str, bool, bool),
    challenge: &Challenge,
    jti: String,
    now: UnixMillis,
) -> Token {
    let at = now.0 / 1000;
    let claims = json!({
        "iss": PEOPLE, "sub": who, "aud": "test", "iat": at, "exp": at + 3600, "jti": jti,
        "challenge": challenge.id, "digest": if fits { &challenge.digest } else { "AAAA" },
        "decision": if approves { "approve" } else { "refuse" },
    });
    let key = key("approver");
    let head = json!({"alg": key.algorithm().as_str(), "typ": "step-up-grant+jwt", "kid": "approver"});
    Token {
        text: key.sign_raw(head.to_string().as_bytes(), claims.to_string().as_bytes()),
        who,
        approves,
        fits,
        challenge: challenge.clone(),
        jti,
        issued: at * 1000,
        expires: (at + 3600) * 1000,
    }
}

/// An answer as it stands in the answers topic: the token that it is, if it is one, and the broker's stamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) token: Option<usize>,
    pub(super) taken: UnixMillis,
}
