//! `entity`: what is put stands, what the schema refuses is never written.

use super::{run, site};
use crate::support::kafka::{NewRecord, broker};

#[test]
fn an_entity_is_put_shown_changed_and_deleted() {
    let Some(broker) = broker("an entity is put, shown, changed and deleted") else { return };
    let (site, topics) = site(broker, &["entities"]);
    let topic = &topics[0];
    let bob = r#"{"uid":{"type":"User","id":"bob"},"attrs":{},"parents":[]}"#;
    site.write("bob.json", bob);
    assert_eq!(
        run(&site, &["entity", "show", "User::\"bob\""]).one(2)["refused"],
        "there is no entity `User::\"bob\"`"
    );
    assert_eq!(run(&site, &["entity", "put", "bob.json"]).one(0)["uid"], "User::\"bob\"");
    let written = broker.read_to_end(topic);
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].key.as_deref(), Some(&b"User::\"bob\""[..]));

    // A list, one of which is there already: it keeps its partition, whoever chose it.
    let elsewhere = (written[0].partition + 1) % 3;
    let carol = NewRecord {
        partition: Some(elsewhere),
        key: Some(b"User::\"carol\"".to_vec()),
        value: Some(bob.replace("bob", "carol").into_bytes()),
        ..NewRecord::default()
    };
    broker.produce(topic, &[carol]);
    site.write(
        "more.json",
        &format!("[{}, {}]", bob.replace("bob", "carol"), bob.replace("User", "Workload")),
    );
    assert_eq!(run(&site, &["entity", "put", "more.json"]).all(0).len(), 2);
    let carols = broker.read_to_end(topic).into_iter();
    let carols: Vec<i32> = carols
        .filter(|record| record.key.as_deref() == Some(b"User::\"carol\""))
        .map(|record| record.partition)
        .collect();
    assert_eq!(carols, [elsewhere, elsewhere]);

    let users = run(&site, &["entity", "list", "--type", "User"]).all(0);
    assert_eq!(
        users.iter().map(|user| user["uid"].as_str().unwrap()).collect::<Vec<_>>(),
        ["User::\"bob\"", "User::\"carol\""]
    );
    assert_eq!(run(&site, &["entity", "delete", "User::\"bob\""]).one(0)["uid"], "User::\"bob\"");
    assert_eq!(run(&site, &["entity", "delete", "User::\"bob\""]).code, 2);
    assert_eq!(run(&site, &["entity", "list"]).all(0).len(), 2);
}

#[test]
fn nothing_is_written_that_the_schema_refuses_and_what_others_wrote_wrongly_is_shown() {
    let Some(broker) = broker("nothing is written that the schema refuses") else { return };
    let (site, topics) = site(broker, &["entities"]);
    let user = |id: &str, attrs: &str| {
        format!(r#"{{"uid":{{"type":"User","id":"{id}"}},"attrs":{attrs},"parents":[]}}"#)
    };
    site.write("two.json", &format!("[{}, {}]", user("good", "{}"), user("bad", r#"{"level":1}"#)));
    let refused = run(&site, &["entity", "put", "two.json"]).one(2);
    assert!(refused["refused"].as_str().unwrap().contains("User::\"bad\""), "{refused}");
    assert_eq!(broker.count(&topics[0]), 0, "all of them or none");
    site.write("none.json", "{\"uid\"");
    assert_eq!(run(&site, &["entity", "put", "none.json"]).code, 1);

    let wrong = |key: &str, value: &str| NewRecord {
        key: Some(key.into()),
        value: Some(value.into()),
        ..NewRecord::default()
    };
    let good = user("good", "{}");
    let records = [wrong("User::\"x\"", &good), wrong("User::\"good\"", &good), wrong("User::\"y\"", "{")];
    broker.produce(&topics[0], &records);
    // A gate's pulse is nobody's entity.
    broker.produce(&topics[0], &[NewRecord { key: Some(b"pulse/one".to_vec()), ..NewRecord::default() }]);
    let listed = run(&site, &["entity", "list"]).all(2);
    assert_eq!(listed.len(), 3);
    assert_eq!(listed.iter().filter(|line| line["problem"].is_string()).count(), 2);
}
