//! `workflow`: each change is one record above the last, and what cannot follow is refused.

use std::thread;

use super::{run, site};
use crate::support::kafka::{NewRecord, broker};

#[test]
fn a_workflow_is_started_moved_suspended_resumed_and_ended() {
    let Some(broker) = broker("a workflow is started, moved, suspended, resumed and ended") else { return };
    let (site, topics) = site(broker, &["workflows"]);
    let workflow = |arguments: &[&str]| run(&site, &[&["workflow"], arguments].concat());
    assert!(workflow(&["show", "wf-1"]).one(2)["refused"].as_str().unwrap().contains("knows no workflow"));
    let start = ["start", "wf-1", "--type", "invoice", "--owner", "spiffe://example.org/o", "--step", "read"];
    let started = workflow(&start).one(0);
    assert_eq!((&started["status"], &started["version"]), (&"running".into(), &1.into()));
    assert_eq!(workflow(&start).code, 2);
    let moved = workflow(&["step", "wf-1", "pay", "--allow", "pay", "--allow", "book"]).one(0);
    assert_eq!((&moved["allowed_steps"][1], &moved["version"]), (&"book".into(), &2.into()));
    assert_eq!(workflow(&["suspend", "wf-1", "--expect-version", "1"]).code, 2);
    assert_eq!(workflow(&["suspend", "wf-1", "--expect-version", "2"]).one(0)["status"], "suspended");
    assert_eq!(workflow(&["step", "wf-1", "book"]).code, 2);
    assert_eq!(workflow(&["resume", "wf-1"]).one(0)["status"], "running");
    let ended = workflow(&["end", "wf-1", "--as", "cancelled"]).one(0);
    assert_eq!((&ended["status"], &ended["version"]), (&"cancelled".into(), &5.into()));
    assert_eq!(workflow(&["end", "wf-1"]).code, 2);
    assert_eq!(workflow(&["show", "wf-1"]).one(0), ended);
    assert_eq!(broker.count(&topics[0]), 5, "what is refused writes nothing");

    let other = ["start", "wf-2", "--type", "report", "--owner", "o", "--step", "s"];
    assert_eq!(workflow(&other).code, 0);
    assert_eq!(workflow(&["list"]).all(0).len(), 2);
    assert_eq!(workflow(&["list", "--status", "running"]).one(0)["id"], "wf-2");
    assert_eq!(workflow(&["list", "--type", "invoice"]).one(0)["id"], "wf-1");
    let strange =
        NewRecord { key: Some(b"wf-3".to_vec()), value: Some(b"{}".to_vec()), ..NewRecord::default() };
    broker.produce(&topics[0], &[strange]);
    assert_eq!(workflow(&["list"]).all(2).iter().filter(|line| line["problem"].is_string()).count(), 1);
    assert_eq!(workflow(&["end", "wf-3"]).code, 1, "nothing is judged on top of what cannot be read");
}

/// Steps and one end, all at once: whoever comes first, the end stands, and the versions rise.
#[test]
fn an_end_stands_however_many_write_at_once() {
    let Some(broker) = broker("an end stands however many write at once") else { return };
    let (site, _topics) = site(broker, &["workflows"]);
    let workflow = |arguments: &[&str]| run(&site, &[&["workflow"], arguments].concat());
    let start = ["start", "wf-1", "--type", "invoice", "--owner", "o", "--step", "read"];
    assert_eq!(workflow(&start).code, 0);
    thread::scope(|scope| {
        for n in 0..4 {
            let (workflow, step) = (&workflow, format!("step-{n}"));
            scope.spawn(move || {
                let ended = workflow(&["step", "wf-1", &step]);
                assert!([0, 2].contains(&ended.code), "{}", ended.error);
            });
        }
        let workflow = &workflow;
        scope.spawn(move || assert_eq!(workflow(&["end", "wf-1", "--as", "failed"]).code, 0));
    });
    assert_eq!(workflow(&["show", "wf-1"]).one(0)["status"], "failed");
}
