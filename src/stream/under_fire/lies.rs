//! The checker is lied to: a run that was right is changed in one place, in every place in turn, and each time it must say
//! so. Limits: what a lie cannot be told by, such as a barrier, is left alone.

use std::rc::Rc;

use super::check::check;
use super::run::{Settings, run};
use super::seen::Seen;
use super::world::{ANSWERS, AUDIT, CHALLENGES, Common, DENIED, HOLDS, REPLAY, SOURCE, TO};
use crate::authorize::ids::{Offset, Position};
use crate::authorize::record::Record;
use crate::authorize::route::Order;

/// A run in which much has happened, and which is right.
fn truth(common: &Rc<Common>) -> Seen {
    for seed in 4_000..4_400 {
        let settings = Settings { order: Order::Key, per_mille: 10, ..Settings::of(seed) };
        let (site, settled) = run(settings, common.clone());
        settled.unwrap();
        let seen = site.seen(true);
        let tally = check(&seen, &common.codecs).unwrap();
        let has = |(what, times): &(&str, usize)| tally.count(None, what) >= *times;
        let wanted =
            [("forward", 4), ("forward approved", 1), ("deny", 3), ("wait", 1), ("answer counted", 2)];
        if wanted.iter().all(has) {
            return seen;
        }
    }
    panic!("no run in which enough has happened to lie about")
}

/// Every record of a run, by its transaction and its place in it.
fn places(seen: &Seen, counts: impl Fn(&Record) -> bool) -> Vec<(usize, usize)> {
    let all = seen.commits.iter().enumerate();
    all.flat_map(|(commit, transaction)| {
        let of = |(index, record): (usize, &Record)| counts(record).then_some((commit, index));
        transaction.records.iter().enumerate().filter_map(of).collect::<Vec<_>>()
    })
    .collect()
}

/// Whether something is lost with that record: a barrier says nothing, nor does a mark that is taken away.
fn matters(record: &Record) -> bool {
    let key = record.key.as_deref().unwrap_or_default();
    let is_mark_gone = key.starts_with(b"grant/") && record.value.is_none();
    match record.source.topic.as_str() {
        TO | DENIED | AUDIT | CHALLENGES => true,
        HOLDS => key != b"barrier" && !is_mark_gone,
        REPLAY => key == b"entries",
        _ => false,
    }
}

fn is_of(record: &Record, topic: &str) -> bool {
    record.source.topic.as_str() == topic
}

/// Tells a lie and expects the checker to say so.
fn expect_caught(common: &Common, truth: &Seen, what: &str, lie: impl FnOnce(&mut Seen)) {
    let mut seen = truth.clone();
    lie(&mut seen);
    assert!(check(&seen, &common.codecs).is_err(), "it does not see {what}");
}

#[test]
fn a_record_that_is_missing_doubled_or_in_another_transaction_is_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    let places = places(&truth, matters);
    assert!(places.len() > 40, "{} places to lie about", places.len());
    for (commit, index) in places {
        let at = truth.commits[commit].records[index].source.to_string();
        expect_caught(&common, &truth, &format!("that {at} is missing"), |seen| {
            seen.commits[commit].records.remove(index);
        });
        expect_caught(&common, &truth, &format!("that {at} stands twice"), |seen| {
            let mut record = seen.commits[commit].records[index].clone();
            record.source.offset = Offset(record.source.offset.0 + 1_000_000);
            seen.commits[commit].records.push(record);
        });
        let other = if commit == 0 { 1 } else { commit - 1 };
        expect_caught(&common, &truth, &format!("that {at} is of another transaction"), |seen| {
            let record = seen.commits[commit].records.remove(index);
            seen.commits[other].records.push(record);
        });
    }
}

#[test]
fn a_record_that_went_where_it_must_not_is_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    for (from, to) in [(TO, DENIED), (DENIED, TO)] {
        for (commit, index) in places(&truth, |record| is_of(record, from)) {
            let at = truth.commits[commit].records[index].source.to_string();
            for also in [false, true] {
                expect_caught(&common, &truth, &format!("that {at} went to {to}, also: {also}"), |seen| {
                    let mut record = seen.commits[commit].records[index].clone();
                    record.source.topic = super::world::topic(to);
                    record.source.offset = Offset(record.source.offset.0 + 1_000_000);
                    if !also {
                        seen.commits[commit].records.remove(index);
                    }
                    seen.commits[commit].records.push(record);
                });
            }
        }
    }
}

#[test]
fn two_records_of_a_partition_that_have_changed_places_are_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    let mut changed = 0;
    for topic in [TO, DENIED, AUDIT] {
        let mut places = places(&truth, |record| is_of(record, topic));
        let at = |place: &(usize, usize)| truth.commits[place.0].records[place.1].source.clone();
        places.sort_by_key(|place| (at(place).partition, at(place).offset));
        for pair in places.windows(2).filter(|pair| at(&pair[0]).partition == at(&pair[1]).partition) {
            let (one, other) = (pair[0], pair[1]);
            let place = |of: (usize, usize)| truth.commits[of.0].records[of.1].source.clone();
            // The leaves of two partitions in one audit partition keep no order between them.
            let (first, second) = (place(one), place(other));
            if topic == AUDIT && !are_of_one_tree(&common, &truth, one, other) {
                continue;
            }
            changed += 1;
            expect_caught(
                &common,
                &truth,
                &format!("that {first} and {second} have changed places"),
                |seen| {
                    seen.commits[one.0].records[one.1].source = second.clone();
                    seen.commits[other.0].records[other.1].source = first.clone();
                },
            );
        }
    }
    assert!(changed > 4, "{changed}");
}

fn are_of_one_tree(common: &Common, seen: &Seen, one: (usize, usize), other: (usize, usize)) -> bool {
    let of = |(commit, index): (usize, usize)| {
        let value = seen.commits[commit].records[index].value.clone().unwrap();
        common.codecs.audit.decode(&value).unwrap().partition
    };
    of(one) == of(other)
}

#[test]
fn a_position_that_is_not_sent_or_is_another_is_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    let mut told = 0;
    for (commit, transaction) in truth.commits.iter().enumerate() {
        let decides = transaction.records.iter().any(|record| is_of(record, AUDIT));
        for (index, mark) in transaction.marks.iter().enumerate() {
            let of = &mark.of;
            let is_source = of.topic.as_str() == SOURCE;
            for by in [-1, 1] {
                expect_caught(
                    &common,
                    &truth,
                    &format!("that the position of {of} is off by {by}"),
                    |seen| {
                        let mark = &mut seen.commits[commit].marks[index];
                        mark.position = Position(mark.position.0 + by);
                    },
                );
            }
            told += 1;
            // What a transaction only reminds of, or answers that it does not take, moves nothing.
            if decides && (is_source || of.topic.as_str() == ANSWERS) && transaction.marks.len() == 1 {
                expect_caught(&common, &truth, &format!("that no position of {of} was sent"), |seen| {
                    seen.commits[commit].marks.remove(index);
                });
            }
        }
    }
    assert!(told > 8, "{told}");
    expect_caught(&common, &truth, "that another tree stands beside a position", |seen| {
        let of_source = |mark: &&mut crate::stream::log::Mark| mark.of.topic.as_str() == SOURCE;
        let marks = seen.commits.iter_mut().flat_map(|commit| &mut commit.marks);
        let mut marks: Vec<_> = marks.filter(of_source).filter(|mark| mark.of.partition.0 == 0).collect();
        let first = marks[0].metadata.clone();
        marks.last_mut().unwrap().metadata = first;
    });
}

#[test]
fn an_end_that_is_not_as_the_answers_say_is_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    let audits: Vec<_> = places(&truth, |record| is_of(record, AUDIT));
    let audits = audits.into_iter().map(|(commit, index)| {
        let value = truth.commits[commit].records[index].value.clone().unwrap();
        common.codecs.audit.decode(&value).unwrap()
    });
    let counted: Vec<String> = audits
        .filter_map(|audit| audit.answer)
        .filter(|answer| answer.effect == "counted")
        .filter_map(|answer| answer.jti)
        .collect();
    assert!(counted.len() > 1, "{counted:?}");
    for jti in &counted {
        let index = truth.tokens.iter().position(|token| token.jti == *jti).unwrap();
        for lie in 0..3 {
            expect_caught(&common, &truth, &format!("what `{jti}` said ({lie})"), |seen| match lie {
                0 => seen.tokens[index].approves ^= true,
                1 => seen.tokens[index].who = "mallory",
                _ => seen.tokens[index].fits = false,
            });
        }
    }
}

#[test]
fn what_was_sent_and_never_decided_and_what_was_decided_and_never_sent_is_seen() {
    let common = Common::shared();
    let truth = truth(&common);
    for partition in 0..truth.sent.len() {
        expect_caught(&common, &truth, "a record that was left", |seen| {
            let more = seen.sent.iter().flatten().next().unwrap().clone();
            seen.sent[partition].push(more);
        });
        if !truth.sent[partition].is_empty() {
            expect_caught(&common, &truth, "a record that nobody sent", |seen| {
                seen.sent[partition].pop();
            });
        }
        expect_caught(&common, &truth, "an answer that was left", |seen| {
            let taken = crate::authorize::ids::UnixMillis(0);
            seen.answers[partition].push(super::people::Answered { token: None, taken });
        });
    }
    expect_caught(&common, &truth, "a run that has not ended", |seen| {
        let last = seen.commits.iter().rposition(|commit| !commit.records.is_empty()).unwrap();
        seen.commits.truncate(last);
    });
}
