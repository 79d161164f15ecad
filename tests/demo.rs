//! `countersign demo` as a newcomer runs it: the story on the embedded broker, its totals, and the files in
//! `examples/demo/` that it runs on.

use std::process::{Command, Output};

use serde_json::{Value, json};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).arg("demo").args(arguments).output().unwrap()
}

#[test]
fn the_story_ends_as_told_and_every_message_is_counted() {
    let ran = demo(&["--json", "--messages", "200"]);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), &*errors), (Some(0), ""));
    let totals: Value = serde_json::from_slice(&ran.stdout).unwrap();
    // 24 situations, then ten rounds of twenty messages.
    assert_eq!(
        totals,
        json!({
            "sent": 224, "forwarded": 145, "denied": 79, "audited": 224,
            "by_reason": {
                "audience_mismatch": 1, "context_missing": 12, "forbidden": 23, "issuer_unknown": 2,
                "not_permitted": 23, "proof_mismatch": 11, "replayed": 2, "request_mismatch": 1,
                "signature_invalid": 3, "token_expired": 1
            }
        })
    );
}

#[test]
fn the_table_tells_each_situation_with_its_reason() {
    let ran = demo(&["--color", "never"]);
    let (told, errors) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8_lossy(&ran.stderr));
    assert_eq!((ran.status.code(), &*errors), (Some(0), ""), "{told}");
    assert!(told.contains("at least once"), "what the embedded broker cannot promise is said");
    let row =
        |title: &str| told.lines().find(|line| line.contains(title)).unwrap_or_else(|| panic!("{told}"));
    assert!(row("pays 120 for alice").ends_with("forwarded  invoice-agent-pays"));
    assert!(row("stronger payments service").ends_with("denied     not_permitted"));
    assert!(row("changes the amount").ends_with("denied     proof_mismatch"));
    assert!(told.contains("24 sent: 5 forwarded, 19 denied, 24 audited"));
    assert!(!told.contains("eyJ") && !told.contains('\u{1b}'), "no token and no colour");
}
