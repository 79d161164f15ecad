//! The desk over a log in memory, with a seeded plan of faults: what a caller was told holds, and every tree is whole.

use std::collections::{BTreeMap, HashMap};

use arc_swap::ArcSwap;

use super::clerk::TREE;
use super::*;
use crate::authorize::access::Reply;
use crate::authorize::access::people::{ANSWERS, CHALLENGES, People};
use crate::authorize::audit::AuditRecord;
use crate::authorize::decision::Reason;
use crate::authorize::ids::Partition;
use crate::authorize::step_up::{Challenge, Status};
use crate::stream::freshness::Freshness;
use crate::stream::log::TopicPartition;
use crate::stream::memory::{Cluster, Faults, ManualClock, MemoryLog};
use crate::telemetry::Telemetry;
use crate::wire::audit::AuditCodec;
use crate::wire::audit::tests::full;
use crate::wire::challenge::ChallengeCodec;
use crate::wire::outgoing::Codecs;

const PARTITIONS: i32 = 3;

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn audit() -> Topic {
    topic("payments.audit")
}

/// A desk over a log in memory: with people to ask where a topic says where they answer.
fn clerk(cluster: &Cluster, faults: Faults, limits: TopicLimits) -> Clerk<MemoryLog, ManualClock> {
    let people = People::new();
    clerk_of(cluster, &ManualClock::default(), faults, limits, people, None)
}

fn clerk_of(
    cluster: &Cluster,
    clock: &ManualClock,
    faults: Faults,
    limits: TopicLimits,
    people: People,
    asking: Option<PeopleSettings>,
) -> Clerk<MemoryLog, ManualClock> {
    let world = people.world;
    let settings =
        DeskSettings { route: Arc::new(world.route), limits, people: asking, name: "gate-1".to_owned() };
    let work = Gatework {
        engine: Arc::new(world.engine),
        routes: Arc::new(HashMap::new()),
        codecs: Arc::new(Codecs::new().unwrap()),
        snapshots: Arc::new(ArcSwap::from_pointee(world.snapshot)),
        freshness: Freshness::default(),
        telemetry: Telemetry::off(),
    };
    Clerk::new(MemoryLog::new(cluster, clock, 0, faults), clock.clone(), settings, work)
}

fn cluster() -> Cluster {
    let cluster = Cluster::default();
    for name in ["payments.audit", ANSWERS, CHALLENGES] {
        cluster.create(&topic(name), PARTITIONS);
    }
    cluster
}

type Hears = oneshot::Receiver<Told>;

fn evaluated(id: &str) -> Evaluated {
    let audit = AuditRecord { decision_id: id.to_owned(), leaf_index: -7, ..full() };
    Evaluated { denied: None, reply: Reply::default(), audit, waiting: None }
}

fn request(ids: &[String]) -> (Request, Hears) {
    handed(ids.iter().map(|id| evaluated(id)).collect(), Semantic::ExecuteAll)
}

fn handed(evaluated: Vec<Evaluated>, semantic: Semantic) -> (Request, Hears) {
    let (reply, told) = oneshot::channel();
    (Request { evaluated, semantic, reply }, told)
}

/// What a caller was told, if it was.
fn heard(told: &mut Hears) -> Option<Result<(), DeskError>> {
    told.try_recv().ok().map(|told| told.map(drop))
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
    assert_eq!(heard(&mut first), None, "told before it was written");
    clerk.write(vec![one, two]);
    assert_eq!((heard(&mut first), heard(&mut second)), (Some(Ok(())), Some(Ok(()))));
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
    large.evaluated[0].audit.detail = Some("x".repeat(5000));
    let (small, mut taken) = request(&["small".to_owned()]);
    clerk.write(vec![large, small]);
    assert_eq!((heard(&mut refused), heard(&mut taken)), (Some(Err(DeskError::TooLarge)), Some(Ok(()))));
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
            let (requests, receivers): (Vec<Request>, Vec<Hears>) = asked.into_iter().unzip();
            let ids: Vec<Vec<String>> = requests
                .iter()
                .map(|r| r.evaluated.iter().map(|e| e.audit.decision_id.clone()).collect())
                .collect();
            clerk.write(requests);
            for (ids, mut receiver) in ids.into_iter().zip(receivers) {
                match heard(&mut receiver) {
                    Some(Ok(())) => expected.extend(ids),
                    Some(Err(DeskError::Unavailable)) => told_failed += 1,
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
    let commit = async |desk: Desk| desk.commit(vec![evaluated("a")], Semantic::ExecuteAll).await.map(drop);
    assert_eq!(runtime.block_on(commit(desk.clone())), Err(DeskError::Unavailable));
    open.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        let first = tokio::spawn(commit(desk.clone()));
        tokio::task::yield_now().await;
        assert_eq!(commit(desk.clone()).await, Err(DeskError::Busy));
        drop(requests);
        assert_eq!(first.await.unwrap(), Err(DeskError::Unavailable));
        assert_eq!(commit(desk).await, Err(DeskError::Unavailable));
    });
}

/// A desk that asks people, and what becomes of it.
struct Office {
    cluster: Cluster,
    clock: ManualClock,
    clerk: Clerk<MemoryLog, ManualClock>,
    people: People,
}

impl Office {
    fn new(faults: Faults) -> Self {
        let (cluster, clock) = (cluster(), ManualClock::default());
        let asking = PeopleSettings {
            challenges: topic(CHALLENGES),
            limits: TopicLimits::default(),
            answers: topic(ANSWERS),
        };
        let limits = TopicLimits::default();
        let clerk = clerk_of(&cluster, &clock, faults, limits, People::new(), Some(asking));
        let mut office = Self { cluster, clock, clerk, people: People::new() };
        office.wait(0);
        office
    }

    fn open(&mut self) {
        while !self.clerk.is_open() && !self.clerk.open() {}
    }

    fn wait(&mut self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds));
        self.people.now = self.clock.now();
    }

    fn pay(&mut self, invoice: &str) -> Told {
        self.pay_all(&[invoice], Semantic::ExecuteAll)
    }

    fn pay_all(&mut self, invoices: &[&str], semantic: Semantic) -> Told {
        let asked = invoices.iter().map(|invoice| self.people.pays(invoice)).collect();
        let (request, mut told) = handed(asked, semantic);
        self.clerk.write(vec![request]);
        told.try_recv().expect("told")
    }

    fn answer(&self, challenge: &Challenge, who: &str, decision: &str) {
        let answer = self.people.answers(challenge, who, decision);
        let of = TopicPartition { topic: topic(ANSWERS), partition: Partition(challenge.partition) };
        let token = String::from_utf8(answer.value.unwrap().to_vec()).unwrap();
        self.cluster.answer(&of, &challenge.id, &token, self.people.now);
    }

    /// Every committed state of every challenge, in the order of its partition.
    fn challenges(&self) -> BTreeMap<String, Vec<Challenge>> {
        let codec = ChallengeCodec::new().unwrap();
        let mut all: BTreeMap<String, Vec<Challenge>> = BTreeMap::new();
        for partition in (0..PARTITIONS).map(Partition) {
            for record in self.cluster.read(&TopicPartition { topic: topic(CHALLENGES), partition }) {
                let challenge = codec.decode(&record.value.unwrap()).unwrap();
                all.entry(challenge.id.clone()).or_default().push(challenge);
            }
        }
        all
    }

    fn audits(&self) -> Vec<AuditRecord> {
        trees(&self.cluster).into_values().flatten().collect()
    }

    fn story(&self, id: &str) -> Vec<&'static str> {
        self.challenges()[id].iter().map(|challenge| challenge.status.as_str()).collect()
    }
}

fn reasons(told: &Told) -> Vec<Option<Reason>> {
    told.as_ref().unwrap().iter().map(|one| one.denied).collect()
}

#[test]
fn a_person_is_asked_answers_and_the_next_ask_is_allowed_once() {
    let mut office = Office::new(Faults::none());
    office.open();
    assert_eq!(reasons(&office.pay("large")), [Some(Reason::StepUpRequired)]);
    let asked = office.challenges().into_values().next().unwrap().remove(0);
    office.answer(&asked, "mallory", "approve");
    office.answer(&asked, "carol", "approve");
    office.clerk.listen();
    assert_eq!(office.story(&asked.id), ["open", "approved"]);
    assert_eq!(reasons(&office.pay("large")), [None]);
    assert_eq!(office.story(&asked.id), ["open", "approved", "released"]);
    assert_eq!(reasons(&office.pay("large")), [Some(Reason::StepUpRequired)]);
    let outcomes: Vec<_> = office.audits().into_iter().map(|audit| audit.outcome).collect();
    assert_eq!(outcomes, ["deny", "answer", "answer", "allow", "deny"], "leaves of one tree");
    // A clean end ends what is open.
    office.clerk.close();
    let last: Vec<Status> = office.challenges().values().map(|told| told.last().unwrap().status).collect();
    assert_eq!(last.len(), 2);
    assert!(last.contains(&Status::Released) && last.contains(&Status::Expired));
}

#[test]
fn a_list_ends_by_what_people_have_answered() {
    let mut office = Office::new(Faults::none());
    office.open();
    let told = office.pay_all(&["large", "large", "small"], Semantic::DenyOnFirstDeny);
    assert_eq!(reasons(&told), [Some(Reason::StepUpRequired)]);
    let asked = office.challenges().into_values().next().unwrap().remove(0);
    office.answer(&asked, "carol", "approve");
    office.clerk.listen();
    // The first uses the approval, the second asks anew and ends the list.
    let told = office.pay_all(&["large", "large", "small"], Semantic::DenyOnFirstDeny);
    assert_eq!(reasons(&told), [None, Some(Reason::StepUpRequired)]);
    let told = office.pay_all(&["large", "small", "large"], Semantic::PermitOnFirstPermit);
    assert_eq!(reasons(&told), [Some(Reason::StepUpRequired), None]);
    assert_eq!(office.audits().len(), 1 + 1 + 2 + 2);
}

#[test]
fn what_nobody_answers_ends_by_a_timer_once_the_answers_are_read() {
    let mut office = Office::new(Faults::none());
    office.open();
    assert_eq!(reasons(&office.pay("brief")), [Some(Reason::StepUpRequired)]);
    let asked = office.challenges().into_values().next().unwrap().remove(0);
    office.wait(59);
    office.clerk.listen();
    assert_eq!(office.story(&asked.id), ["open", "open"], "a reminder");
    office.wait(60);
    // The end of the answers is asked for, then read up to, then what is over ends.
    for _ in 0..3 {
        office.wait(1);
        office.clerk.listen();
    }
    assert_eq!(office.story(&asked.id), ["open", "open", "expired"]);
    office.answer(&asked, "carol", "approve");
    office.clerk.listen();
    let effect = office.audits().pop().unwrap().answer.unwrap().effect;
    assert_eq!(effect, "stray");
}

#[test]
fn with_another_tree_every_approval_is_void() {
    let mut office = Office::new(Faults::none());
    office.open();
    office.pay("large").unwrap();
    let asked = office.challenges().into_values().next().unwrap().remove(0);
    office.answer(&asked, "carol", "approve");
    office.clerk.listen();
    office.clerk.lose();
    office.open();
    assert_eq!(reasons(&office.pay("large")), [Some(Reason::StepUpRequired)]);
    office.clerk.listen();
    assert_eq!(office.story(&asked.id), ["open", "approved", "expired"]);
    let audits = office.audits().len();
    office.answer(&asked, "dave", "approve");
    office.clerk.listen();
    assert_eq!(office.audits().len(), audits, "it names a desk that is no more");
}

/// Whatever fails: who is told that it is allowed rests on an approval of its own, no answer is audited twice, and no
/// challenge ends twice.
#[test]
fn under_faults_no_approval_is_used_twice() {
    let (mut allowed, mut opened, mut lost) = (0, 0, 0);
    for seed in 0..25 {
        let mut office = Office::new(Faults::seeded(seed, 60));
        let mut uses: Vec<String> = Vec::new();
        for turn in 0..40 {
            if !office.clerk.is_open() {
                lost += 1;
                office.open();
            }
            office.wait(1);
            for told in [office.pay("large"), office.pay("large")] {
                let Ok(told) = told else { continue };
                uses.extend(
                    told.iter()
                        .filter(|one| one.denied.is_none())
                        .map(|one| one.audit.challenge.clone().expect("a challenge")),
                );
            }
            let challenges = office.challenges();
            let open = challenges.values().filter_map(|told| told.last());
            if let Some(challenge) =
                open.filter(|challenge| challenge.status.is_open()).max_by_key(|c| c.asked_at)
            {
                office.answer(challenge, if turn % 3 == 0 { "dave" } else { "carol" }, "approve");
            }
            office.clerk.listen();
        }
        office.open();
        let audits = office.audits();
        allowed += uses.len();
        let mut used: Vec<&str> = audits
            .iter()
            .filter(|audit| audit.outcome == "allow")
            .map(|audit| audit.challenge.as_deref().unwrap())
            .collect();
        used.sort_unstable();
        assert!(used.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: used twice");
        for id in &uses {
            assert!(used.binary_search(&id.as_str()).is_ok(), "seed {seed}: allowed and not audited");
        }
        let mut answers: Vec<&str> = audits
            .iter()
            .filter(|audit| audit.outcome == "answer")
            .map(|audit| audit.token_hashes[0].sha256.as_str())
            .collect();
        answers.sort_unstable();
        assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: an answer twice");
        let challenges = office.challenges();
        opened += challenges.len();
        for (id, told) in &challenges {
            let ends = told.iter().filter(|c| matches!(c.status, Status::Expired | Status::Released)).count();
            assert!(ends <= 1, "seed {seed}: {id} ended {ends} times");
            let approved = told.iter().position(|challenge| challenge.status == Status::Approved);
            let released = told.iter().position(|challenge| challenge.status == Status::Released);
            assert!(released.is_none() || approved < released, "seed {seed}: released unapproved");
        }
    }
    assert!(allowed > 150 && opened > 150 && lost > 50, "{allowed} {opened} {lost}");
}
