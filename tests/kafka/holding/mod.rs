//! Lanes that hold, on a real broker and in processes of their own that are killed while they hold, take answers and
//! release: each held record ends exactly once and as its answers say, and each answer is audited exactly once.

mod holder;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use countersign::authorize::ids::{Topic, UnixMillis};
use countersign::config::{Delivery, KafkaProperties, Start};
use countersign::stream::admin::{HoldingTopics, Others, SourceTopic, TopicProblem, inspect};
use countersign::stream::breaker::TryAgain;
use countersign::stream::clock::SystemClock;
use countersign::stream::kafka::KafkaLog;
use countersign::stream::kafka::settings::{KafkaSettings, writer_prefix};
use countersign::stream::lane::{HoldTopics, Lane, LaneSettings, Source, Stop};
use countersign::telemetry::Telemetry;

use self::holder::{Holder, Topics};
use crate::gate::{Dice, alone, wait_for};
use crate::support::kafka::{Broker, NewRecord, Record, broker};

/// In a process of a lane: its address, the topics' common name, its group and its name.
const LANE: &str = "COUNTERSIGN_TEST_HOLDING_LANE";
const PARTITIONS: i32 = 3;
const KILLS: u32 = 30;
/// After so many kills another lane comes, and goes.
const KILLS_A_REBALANCE: u32 = 7;
/// Records that are read back in one long restore.
const MANY: &str = "COUNTERSIGN_TEST_HOLDS";

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic name")
}

/// The topics of one route that holds.
#[derive(Clone)]
struct Office {
    bootstrap: String,
    from: String,
    group: String,
}

impl Office {
    fn new(broker: &Broker) -> Self {
        let stamped = [("message.timestamp.type", "LogAppendTime")];
        let from = broker.create_topic("holding", PARTITIONS, &stamped);
        let office = Self { bootstrap: broker.bootstrap().to_owned(), group: broker.unique("holding"), from };
        for part in ["to", "denied", "audit"] {
            broker.create_named(&office.name(part), PARTITIONS, &[]);
        }
        office
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.from)
    }

    fn properties(&self) -> KafkaProperties {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", &self.bootstrap);
        properties
    }

    /// What a gate would look at and make before it starts.
    fn source(&self) -> SourceTopic {
        SourceTopic {
            topic: topic(&self.from),
            replay: topic(&self.name("replay")),
            window: Duration::from_secs(360),
            max_queue_time: Duration::from_secs(60),
            trust_create_time: false,
            targets: ["to", "denied", "audit"].map(|part| topic(&self.name(part))).into(),
            holding: Some(HoldingTopics {
                challenges: topic(&self.name("challenges")),
                holds: topic(&self.name("holds")),
                answers: topic(&self.name("answers")),
                keep: Duration::from_secs(90_000),
            }),
        }
    }

    fn lane(&self, name: &str) -> Lane<KafkaLog, Holder, SystemClock> {
        let topics = Topics {
            to: topic(&self.name("to")),
            denied: topic(&self.name("denied")),
            audit: topic(&self.name("audit")),
            holds: topic(&self.name("holds")),
            challenges: topic(&self.name("challenges")),
        };
        let transaction_timeout = Duration::from_secs(5);
        let holding = HoldTopics {
            holds: topics.holds.clone(),
            answers: topic(&self.name("answers")),
            skew: Duration::from_millis(200),
        };
        let source = Source {
            route: "holding".into(),
            replay: topic(&self.name("replay")),
            audit: topics.audit.clone(),
            denied: topics.denied.clone(),
            breaker: None,
            start: Start::Earliest,
            window: Duration::from_secs(360),
            holding: Some(holding),
        };
        let settings = LaneSettings {
            lane: 0,
            sources: BTreeMap::from([(topic(&self.from), source)]),
            targets: vec![
                topics.to.clone(),
                topics.denied.clone(),
                topics.audit.clone(),
                topics.challenges.clone(),
            ],
            limits: BTreeMap::new(),
            batch: 40,
            ahead: 3,
            linger: Duration::from_millis(5),
            transaction_timeout,
            fenced_tries: 5,
            try_again: TryAgain::default(),
        };
        let log = KafkaLog::new(KafkaSettings {
            properties: self.properties(),
            group: self.group.clone(),
            member: Some(name.to_owned()),
            is_first: true,
            writers: ["a", "b"].map(|turn| format!("{}{name}-{turn}", writer_prefix(&self.group))).into(),
            topics: vec![topic(&self.from)],
            delivery: Delivery::ExactlyOnce,
            batch_bytes: None,
            transaction_timeout,
        });
        let holder = Holder { topics, now: UnixMillis(0) };
        Lane::new(log.expect("clients"), holder, SystemClock::start(), settings, Telemetry::off())
    }

    /// A lane in a process of its own: this test once more, told to be the lane.
    fn start(&self, name: &str) -> Child {
        let this = std::env::current_exe().expect("this program");
        let test = "holding::held_records_end_once_through_kills_and_rebalances";
        Command::new(this)
            .args([test, "--exact", "--nocapture"])
            .env(LANE, [&self.bootstrap, &self.from, &self.group, name].join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process")
    }

    /// What becomes of such a lane: it works until its standard input ends.
    fn be_lane(said: &str) {
        let [bootstrap, from, group, name] = said.split(' ').collect::<Vec<_>>()[..] else {
            panic!("four words: {said}")
        };
        let office = Self { bootstrap: bootstrap.into(), from: from.into(), group: group.into() };
        let stop = Stop::default();
        std::thread::spawn({
            let stop = stop.clone();
            move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                stop.ask();
            }
        });
        office.lane(name).run(&stop).expect("an end in good order");
    }
}

/// Ends a lane in good order.
fn stop(mut lane: Child) {
    drop(lane.stdin.take());
    assert!(lane.wait().expect("an end").success(), "an end in good order");
}

/// What was sent, and what may be answered.
struct Traffic<'a> {
    office: &'a Office,
    broker: &'static Broker,
    writer: crate::support::kafka::Writer,
    dice: Dice,
    sent: Vec<(i32, i64)>,
}

impl Traffic<'_> {
    /// Sends a few records, two of three of them to be held, and answers some that were sent before.
    fn some(&mut self) {
        let records: Vec<NewRecord> = (0..4)
            .map(|n| {
                let n = self.sent.len() + n;
                let value = match self.dice.below(3) {
                    0 => format!("plain {n}"),
                    needs => format!("hold {n} {needs}"),
                };
                let partition = Some(i32::try_from(n).expect("few") % PARTITIONS);
                NewRecord { partition, value: Some(value.into_bytes()), ..NewRecord::default() }
            })
            .collect();
        self.sent.extend(self.writer.write(&self.office.from, &records));
        let answers: Vec<NewRecord> = (0..5)
            .map(|_| {
                let newest = self.sent.len() as u64;
                let among = newest.min(40);
                let at = usize::try_from(newest - among + self.dice.below(among)).expect("fits");
                let (partition, offset) = self.sent[at];
                let word = if self.dice.below(5) == 0 { "no" } else { "yes" };
                NewRecord {
                    partition: Some(partition),
                    key: Some(offset.to_string().into_bytes()),
                    value: Some(word.into()),
                    ..NewRecord::default()
                }
            })
            .collect();
        self.writer.write(&self.office.name("answers"), &answers);
    }

    fn for_a_while(&mut self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until {
            self.some();
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    fn ended(&self) -> usize {
        self.broker.read_stable(&self.office.name("to")).len()
            + self.broker.read_stable(&self.office.name("denied")).len()
    }
}

fn words(bytes: &Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.clone().expect("it is there")).expect("text")
}

fn stamp(record: &Record) -> i64 {
    record.timestamp.to_millis().expect("a stamp")
}

/// Holds what came out against what was sent and answered, partition by partition; counts how records ended.
fn expect_ended(broker: &Broker, office: &Office) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let read = |part: &str| broker.read_to_end(&office.name(part));
    let (sources, answers, audit) = (broker.read_to_end(&office.from), read("answers"), read("audit"));
    let outcomes = [read("to"), read("denied")].concat();
    assert_eq!(outcomes.len(), sources.len(), "one end each");
    let mut ended = BTreeMap::new();
    for record in &outcomes {
        let how = words(&record.key);
        *counts.entry(how.clone()).or_default() += 1;
        assert!(ended.insert(words(&record.value), how).is_none(), "{} ended twice", words(&record.value));
    }
    for partition in 0..PARTITIONS {
        let audit: Vec<&Record> = audit.iter().filter(|record| record.partition == partition).collect();
        let leaves: Vec<_> = audit.iter().filter_map(|record| record.header("leaf")).collect();
        assert_eq!(leaves, (0..audit.len()).map(|leaf| leaf.to_string()).collect::<Vec<_>>());
        let mut places = BTreeMap::new();
        for (place, record) in audit.iter().enumerate() {
            let before = places.insert(words(&record.key), (place, words(&record.value)));
            assert!(before.is_none(), "{} is audited twice", words(&record.key));
        }
        let place = |key: String| places.get(&key).unwrap_or_else(|| panic!("`{key}` is not audited"));
        let answers: Vec<&Record> = answers.iter().filter(|record| record.partition == partition).collect();
        for source in sources.iter().filter(|record| record.partition == partition) {
            let value = words(&source.value);
            let (held_at, end) = place(format!("record {}", source.offset));
            let mut expected = "copied";
            if value.starts_with("hold") {
                let end: i64 = end.parse().expect("a moment");
                let mut needs: i64 = value.split(' ').nth(2).expect("how many").parse().expect("a number");
                expected = "timed_out";
                let to_it = |answer: &&&Record| words(&answer.key) == source.offset.to_string();
                for answer in answers.iter().filter(to_it) {
                    let (answered_at, _) = place(format!("answer {}", answer.offset));
                    if answered_at < held_at || stamp(answer) > end {
                        continue;
                    }
                    needs -= 1;
                    if words(&answer.value) == "no" {
                        expected = "refused";
                        break;
                    }
                    if needs == 0 {
                        expected = "released";
                        break;
                    }
                }
            }
            assert_eq!(ended[&value], expected, "{value} at {partition}/{}", source.offset);
        }
        for answer in &answers {
            place(format!("answer {}", answer.offset));
        }
    }
    counts
}

#[test]
fn held_records_end_once_through_kills_and_rebalances() {
    if let Ok(said) = std::env::var(LANE) {
        return Office::be_lane(&said);
    }
    let Some(broker) = broker("held records end once through kills and rebalances") else { return };
    let _alone = alone();
    let office = Office::new(broker);
    let made =
        inspect(&office.properties(), &[office.source()], &Others::default(), true).expect("an answer");
    assert_eq!(made.problems, Vec::new());
    let dice = Dice::new("holding");
    let mut traffic = Traffic { office: &office, broker, writer: broker.writer(), dice, sent: Vec::new() };
    let began = Instant::now();
    let mut lane = office.start("one");
    let (mut open, mut rebalances) = (0, 0);
    for kill in 0..KILLS {
        let pause = 700 + traffic.dice.below(900);
        traffic.for_a_while(pause);
        lane.kill().expect("it is killed");
        lane.wait().expect("it is gone");
        open += u32::from(!broker.is_settled(&office.name("audit")));
        lane = office.start("one");
        if kill % KILLS_A_REBALANCE == 1 {
            // Another comes and takes its share of the partitions, and goes in good order.
            let other = office.start("two");
            traffic.for_a_while(3_000);
            stop(other);
            rebalances += 2;
        }
    }
    let sent = traffic.sent.len();
    wait_for("every record to end", || (traffic.ended() == sent).then_some(()));
    stop(lane);
    let counts = expect_ended(broker, &office);
    println!(
        "holding: {sent} records, {KILLS} kills ({open} within a transaction) and {rebalances} rebalances in {:?}: {counts:?}",
        began.elapsed()
    );
    for how in ["copied", "released", "refused", "timed_out"] {
        assert!(counts.contains_key(how), "{how} was never tried: {counts:?}");
    }
}

#[test]
fn many_holds_are_read_back_before_anything_is_decided() {
    let Some(broker) = broker("many holds are read back before anything is decided") else { return };
    let count: usize = std::env::var(MANY).ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    let office = Office::new(broker);
    inspect(&office.properties(), &[office.source()], &Others::default(), true).expect("an answer");
    // As large as a record with its tokens.
    let filler = "x".repeat(3_000);
    let record = |n: usize| NewRecord {
        partition: Some(0),
        value: Some(format!("hold {n} 1 {filler}").into_bytes()),
        ..NewRecord::default()
    };
    for from in (0..count).step_by(1_000) {
        broker.produce(&office.from, &(from..count.min(from + 1_000)).map(record).collect::<Vec<_>>());
    }
    let run = |seconds: u64, until: &dyn Fn() -> bool| {
        let (stop, began) = (Stop::default(), Instant::now());
        let thread = std::thread::spawn({
            let (stop, office) = (stop.clone(), office.clone());
            move || office.lane("one").run(&stop)
        });
        while !until() {
            assert!(began.elapsed() < Duration::from_secs(seconds), "it took too long");
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = began.elapsed();
        stop.ask();
        thread.join().expect("no panic").expect("an end in good order");
        took
    };
    let position = || broker.committed(&office.group, &office.from).get(&0).map_or(0, |at| at.position);
    run(600, &|| usize::try_from(position()).is_ok_and(|at| at == count));
    // A record that comes now is decided only after all of them have been read back, so its end tells when.
    let plain = NewRecord { partition: Some(0), value: Some(b"plain".to_vec()), ..NewRecord::default() };
    broker.produce(&office.from, &[plain]);
    let took = run(600, &|| usize::try_from(position()).is_ok_and(|at| at == count + 1));
    let kept = broker.read_stable(&office.name("holds")).iter().map(size).sum::<usize>();
    println!("holding: {count} holds, {kept} bytes read back; the next record decided after {took:?}");
    let out = broker.read_to_end(&office.name("to"));
    assert_eq!(out.len(), 1, "only what is not held has gone on");
}

fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len)
}

#[test]
fn the_topics_of_a_route_that_holds_are_made_grow_and_are_checked() {
    let Some(broker) = broker("the topics of a route that holds are made, grow and are checked") else {
        return;
    };
    let office = Office::new(broker);
    let source = office.source();
    let topics = source.holding.clone().expect("it holds");
    let looked = inspect(&office.properties(), std::slice::from_ref(&source), &Others::default(), false)
        .expect("an answer");
    let own = [&source.replay, &topics.challenges, &topics.holds, &topics.answers];
    assert_eq!(looked.would_make, own.map(|topic| (topic.clone(), PARTITIONS)));
    let made = inspect(&office.properties(), std::slice::from_ref(&source), &Others::default(), true)
        .expect("an answer");
    assert_eq!((made.made.len(), made.problems), (4, Vec::new()));
    let compacted = |topic: &Topic| made.facts[topic].compacted;
    assert_eq!(own.map(compacted), [Some(false), Some(true), Some(true), Some(false)]);
    let again = inspect(&office.properties(), std::slice::from_ref(&source), &Others::default(), true)
        .expect("an answer");
    assert_eq!((again.made, again.problems), (Vec::new(), Vec::new()));

    // Topics that somebody made otherwise, and too small.
    let wrong = HoldingTopics {
        challenges: topic(&broker.create_topic("holding-challenges", 1, &[])),
        holds: topic(&broker.create_topic("holding-holds", 1, &[("cleanup.policy", "compact")])),
        answers: topic(&broker.create_topic("holding-answers", PARTITIONS, &[("retention.ms", "1000")])),
        ..topics
    };
    let source = SourceTopic { holding: Some(wrong.clone()), ..source };
    let found = inspect(&office.properties(), &[source], &Others::default(), true).expect("an answer");
    assert_eq!(found.made, [(wrong.holds, PARTITIONS)], "it grew");
    let [
        TopicProblem::NotCompacted { .. },
        TopicProblem::NotStamped { .. },
        TopicProblem::AnswersRetention { .. },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems)
    };
    assert!(found.problems[1].help().contains("message.timestamp.type=LogAppendTime"));
}
