//! The desk over a log in memory, with a seeded plan of faults: what a caller was told holds, and every tree is whole.

use std::collections::BTreeMap;

use super::clerk::TREE;
use super::*;
use crate::authorize::ids::Partition;
use crate::stream::log::TopicPartition;
use crate::stream::memory::{Cluster, Faults, ManualClock, MemoryLog};
use crate::wire::audit::AuditCodec;
use crate::wire::audit::tests::full;

const PARTITIONS: i32 = 3;

fn audit() -> Topic {
    Topic::parse("payments.audit").unwrap()
}

fn clerk(cluster: &Cluster, faults: Faults, limits: TopicLimits) -> Clerk<MemoryLog, ManualClock> {
    let clock = ManualClock::default();
    let settings = DeskSettings { audit: audit(), limits, name: "gate-1".to_owned() };
    let codecs = Arc::new(Codecs::new().unwrap());
    Clerk::new(MemoryLog::new(cluster, &clock, 0, faults), clock, settings, codecs, Telemetry::off())
}

fn cluster() -> Cluster {
    let cluster = Cluster::default();
    cluster.create(&audit(), PARTITIONS);
    cluster
}

type Told = oneshot::Receiver<Result<(), DeskError>>;

fn request(ids: &[String]) -> (Request, Told) {
    let (reply, told) = oneshot::channel();
    let audits = ids.iter().map(|id| AuditRecord { decision_id: id.clone(), leaf_index: -7, ..full() });
    (Request { audits: audits.collect(), reply }, told)
}

/// The committed records of each tree, in the order of the log.
fn trees(cluster: &Cluster) -> BTreeMap<String, Vec<AuditRecord>> {
    let codec = AuditCodec::new().unwrap();
    let mut trees: BTreeMap<String, Vec<AuditRecord>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in cluster.read(&TopicPartition { topic: audit(), partition: Partition(partition) }) {
            let header = record.headers.iter().find(|header| header.name == TREE.as_bytes()).unwrap();
            let tree = String::from_utf8(header.value.clone().unwrap().to_vec()).unwrap();
            let read = codec.decode(&record.value.unwrap()).unwrap();
            assert_eq!(record.key.as_deref(), Some(read.decision_id.as_bytes()));
            trees.entry(tree).or_default().push(read);
        }
    }
    trees
}

#[test]
fn an_answer_waits_for_its_records_and_they_are_the_leaves_of_one_tree() {
    let cluster = cluster();
    let mut clerk = clerk(&cluster, Faults::none(), TopicLimits::default());
    assert!(!clerk.is_open() && clerk.open());
    let (one, mut first) = request(&["a".to_owned(), "b".to_owned()]);
    let (two, mut second) = request(&["c".to_owned()]);
    assert!(first.try_recv().is_err(), "told before it was written");
    clerk.write(vec![one, two]);
    assert_eq!((first.try_recv(), second.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
    let trees = trees(&cluster);
    let (name, records) = trees.first_key_value().unwrap();
    assert!(trees.len() == 1 && name.starts_with("gate-1/"));
    let leaves: Vec<(&str, i64)> = records.iter().map(|r| (r.decision_id.as_str(), r.leaf_index)).collect();
    assert_eq!(leaves, [("a", 0), ("b", 1), ("c", 2)]);
}

#[test]
fn whoever_has_gone_is_not_written_down() {
    let cluster = cluster();
    let mut clerk = clerk(&cluster, Faults::none(), TopicLimits::default());
    clerk.open();
    let (gone, told) = request(&["a".to_owned()]);
    drop(told);
    clerk.write(vec![gone]);
    assert!(trees(&cluster).is_empty());
}

#[test]
fn one_that_is_too_large_fails_alone() {
    let cluster = cluster();
    let limits = TopicLimits { max_bytes: Some(4000), ..TopicLimits::default() };
    let mut clerk = clerk(&cluster, Faults::none(), limits);
    clerk.open();
    let (mut large, mut refused) = request(&["large".to_owned()]);
    large.audits[0].detail = Some("x".repeat(5000));
    let (small, mut taken) = request(&["small".to_owned()]);
    clerk.write(vec![large, small]);
    assert_eq!((refused.try_recv(), taken.try_recv()), (Ok(Err(DeskError::TooLarge)), Ok(Ok(()))));
    assert_eq!(trees(&cluster).into_values().flatten().map(|r| r.leaf_index).collect::<Vec<_>>(), [0]);
}

/// Whatever fails: what was told as committed is there once, what is there is in a whole tree, and a producer whose fate is
/// unknown is replaced.
#[test]
fn under_faults_nobody_is_told_what_is_not_committed() {
    let (mut told_ok, mut told_failed, mut begun) = (0, 0, 0);
    for seed in 0..200 {
        let cluster = cluster();
        let mut clerk = clerk(&cluster, Faults::seeded(seed, 80), TopicLimits::default());
        let mut expected = Vec::new();
        for turn in 0..30 {
            if !clerk.is_open() && !clerk.open() {
                continue;
            }
            let asked: Vec<_> =
                (0..3).map(|n| request(&[format!("{turn}-{n}-a"), format!("{turn}-{n}-b")])).collect();
            let (requests, receivers): (Vec<Request>, Vec<Told>) = asked.into_iter().unzip();
            let ids: Vec<Vec<String>> =
                requests.iter().map(|r| r.audits.iter().map(|a| a.decision_id.clone()).collect()).collect();
            clerk.write(requests);
            for (ids, mut receiver) in ids.into_iter().zip(receivers) {
                match receiver.try_recv() {
                    Ok(Ok(())) => expected.extend(ids),
                    Ok(Err(DeskError::Unavailable)) => told_failed += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        told_ok += expected.len();
        // Ends what is left open, so that everything settled can be read.
        while !clerk.open() {}
        let trees = trees(&cluster);
        begun += trees.len();
        for (name, records) in &trees {
            let leaves: Vec<i64> = records.iter().map(|record| record.leaf_index).collect();
            assert_eq!(leaves, (0..leaves.len() as i64).collect::<Vec<_>>(), "seed {seed}, tree {name}");
        }
        let mut found: Vec<String> = trees.into_values().flatten().map(|record| record.decision_id).collect();
        found.sort();
        assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: twice");
        for id in expected {
            assert!(found.binary_search(&id).is_ok(), "seed {seed}: {id} was told and is not there");
        }
    }
    assert!(told_ok > 10_000 && told_failed > 500 && begun > 400, "{told_ok} {told_failed} {begun}");
}

#[test]
fn a_desk_that_is_not_open_refuses_at_once_and_a_full_one_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (queue, requests) = sync_channel(1);
    let open = Arc::new(AtomicBool::new(false));
    let desk = Desk { queue, open: Arc::clone(&open) };
    assert_eq!(runtime.block_on(desk.commit(vec![full()])), Err(DeskError::Unavailable));
    open.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        let waiting = desk.clone();
        let first = tokio::spawn(async move { waiting.commit(vec![full()]).await });
        tokio::task::yield_now().await;
        assert_eq!(desk.commit(vec![full()]).await, Err(DeskError::Busy));
        drop(requests);
        assert_eq!(first.await.unwrap(), Err(DeskError::Unavailable));
        assert_eq!(desk.commit(vec![full()]).await, Err(DeskError::Unavailable));
    });
}
