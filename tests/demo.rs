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
    // 42 records of the story, then ten rounds of twenty messages; each answer and each question is audited too.
    assert_eq!(
        totals,
        json!({
            "sent": 242, "answers": 6, "questions": 13, "forwarded": 156, "denied": 86, "held": 4, "audited": 265,
            "by_reason": {
                "audience_mismatch": 1, "context_missing": 12, "forbidden": 24, "issuer_unknown": 2,
                "not_permitted": 23, "proof_mismatch": 11, "replayed": 2, "request_mismatch": 1, "revoked": 2,
                "signature_invalid": 3, "step_up_refused": 1, "step_up_timed_out": 1, "token_expired": 1,
                "workflow_ended": 1, "workflow_out_of_step": 1
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
    assert!(row("a manager must agree").ends_with("held       large-payment"));
    assert!(told.contains("asked: Pay 4000 EUR of inv-2002 for alice?"));
    assert!(row("agrees to her own").ends_with("ignored    requester"));
    assert!(row("carol, another manager").ends_with("forwarded  invoice-agent-pays"));
    assert!(row("carol refuses").ends_with("denied     step_up_refused"));
    assert!(row("frozen while it is held").ends_with("denied     forbidden"));
    assert!(row("in its three seconds").ends_with("denied     step_up_timed_out"));
    assert!(row("is no longer").ends_with("denied     workflow_out_of_step"));
    assert!(row("is cancelled, and").ends_with("denied     workflow_ended"));
    assert!(row("what he began").ends_with("denied     revoked"));
    assert!(row("has signed in again").ends_with("forwarded  invoice-agent-pays"));
    let job = |title: &str, ending: &str, done: &str| {
        let mut lines = told.lines().skip_while(|line| !line.contains(title));
        assert!(lines.next().unwrap_or_default().ends_with(ending), "{title}\n{told}");
        assert_eq!(lines.next(), Some(done), "{told}");
    };
    let all = "    done: collect, match, reckon, reserve, announce, transfer, book, archive";
    job("may do everything", "done", all);
    job("is disputed", "refused    forbidden", "    done: collect, match, reckon, reserve, announce");
    job("agrees to the transfer", "done", all);
    job(
        "another large one",
        "refused    step_up_refused",
        "    done: collect, match, reckon, reserve, announce",
    );
    assert!(told.contains("asked: Transfer inv-5005 for alice?"));
    job("workflow is cancelled in the middle", "stopped    workflow_ended", "    done: collect, match");
    job("erin, is revoked", "stopped    revoked", "    done: collect, match, reckon, reserve");
    assert!(told.contains("42 sent: 16 forwarded, 26 denied; 4 were held first"));
    assert!(told.contains("65 audited: one for each"));
    assert!(told.lines().all(|line| line.chars().count() <= 100), "it fits into a terminal");
    assert!(!told.contains("eyJ") && !told.contains('\u{1b}'), "no token and no colour");
}
