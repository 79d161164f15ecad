//! Random histories of records, answers, grants, logins and time against a small model of what must come of them, with batches
//! that abort, partitions that are taken over and records that are read again. Limits: one partition, two keys, one route.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::world::World;
use crate::authorize::route::Order;
use crate::authorize::step_up::{Challenge, Status, Turn};

const INVOICES: [&str; 7] = ["small", "large", "huge", "odd", "frozen", "secure", "double"];
const PEOPLE: [&str; 5] = ["carol", "dave", "erin", "alice", "mallory"];
const KEYS: [&str; 2] = ["k-0", "k-1"];
const SKEW_MS: i64 = 30_000;
const MAX_WAITING: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    /// A record; with the grant of an earlier token where that is said.
    Record {
        invoice: usize,
        key: usize,
        grant: Option<usize>,
    },
    /// An answer to one of the challenges that were told, newest first.
    Answer {
        challenge: usize,
        who: usize,
        approve: bool,
        digest: bool,
    },
    /// A fresh Txn-Token for one of the challenges that were told, newest first: its strength, how long ago its subject has
    /// logged in and it was issued, how long it is good from then, in seconds, and whether it is of the record's transaction.
    Login {
        challenge: usize,
        strong: bool,
        age: i64,
        issued: i64,
        life: i64,
        own: bool,
    },
    /// A login that was given before, once more.
    LoginAgain(usize),
    /// An answer that was given before, once more.
    Again(usize),
    /// A record that was sent before, once more.
    Redeliver(usize),
    Wait(i64),
    ReadAnswers,
    Turns,
    Commit,
    Abort,
    Restore(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let record = (0..7_usize, 0..2_usize, proptest::option::weighted(0.3, 0..20_usize))
        .prop_map(|(invoice, key, grant)| Op::Record { invoice, key, grant });
    let answer = (0..4_usize, 0..5_usize, proptest::bool::weighted(0.8), proptest::bool::weighted(0.9))
        .prop_map(|(challenge, who, approve, digest)| Op::Answer { challenge, who, approve, digest });
    let login = (
        0..4_usize,
        proptest::bool::weighted(0.8),
        prop_oneof![4 => Just(0_i64), 1 => 0..400_i64],
        prop_oneof![4 => Just(0_i64), 1 => 0..200_i64],
        prop_oneof![Just(60_i64), Just(600_i64)],
        proptest::bool::weighted(0.9),
    );
    let login = login.prop_map(|(challenge, strong, age, issued, life, own)| Op::Login {
        challenge,
        strong,
        age,
        issued,
        life,
        own,
    });
    let op = prop_oneof![
        5 => login,
        1 => (0..20_usize).prop_map(Op::LoginAgain),
        5 => record,
        6 => answer,
        1 => (0..20_usize).prop_map(Op::Again),
        1 => (0..20_usize).prop_map(Op::Redeliver),
        3 => (1..400_i64).prop_map(Op::Wait),
        2 => Just(Op::ReadAnswers),
        5 => Just(Op::Turns),
        6 => Just(Op::Commit),
        1 => Just(Op::Abort),
        1 => any::<bool>().prop_map(Op::Restore),
    ];
    proptest::collection::vec(op, 1..80)
}

/// Hold, grant and approvals of an invoice that asks; seconds.
fn asks(invoice: &str) -> Option<(i64, i64, usize)> {
    match invoice {
        "large" => Some((600, 300, 1)),
        "huge" => Some((1800, 600, 2)),
        "odd" => Some((600, 300, 2)),
        "secure" => Some((1200, 600, 0)),
        "double" => Some((600, 300, 1)),
        _ => None,
    }
}

/// Whether it asks for a login of the last five minutes.
fn asks_for_login(invoice: &str) -> bool {
    ["secure", "double"].contains(&invoice)
}

/// A token that somebody gave.
#[derive(Debug, Clone)]
struct Token {
    text: String,
    who: &'static str,
    approve: bool,
    digest: bool,
    challenge: Challenge,
    at: i64,
}

/// A fresh Txn-Token; moments in milliseconds.
#[derive(Debug, Clone)]
struct Login {
    text: String,
    challenge: Challenge,
    strong: bool,
    authenticated: i64,
    issued: i64,
    expires: i64,
    own: bool,
}

impl Login {
    fn is_valid(&self, now: i64) -> bool {
        now <= self.expires + SKEW_MS
    }

    fn is_fresh(&self, now: i64) -> bool {
        self.strong && now - self.authenticated <= 300_000
    }
}

#[derive(Debug, Clone)]
struct Asked {
    asked_at: i64,
    until: i64,
    status: Status,
    /// The token, and until when it is good.
    answers: Vec<(usize, i64)>,
    reminders: usize,
    login: Option<usize>,
    /// Whether that login has not been looked at yet.
    due: bool,
}

impl Asked {
    fn none(now: i64) -> Self {
        Self {
            asked_at: now,
            until: now,
            status: Status::Open,
            answers: Vec::new(),
            reminders: 0,
            login: None,
            due: false,
        }
    }
}

#[derive(Debug, Clone)]
struct Held {
    invoice: &'static str,
    key: &'static str,
    grant: Option<usize>,
    asked: Option<Asked>,
}

/// What must be so once a batch is committed.
#[derive(Debug, Clone, Default)]
struct State {
    held: BTreeMap<i64, Held>,
    spent: BTreeSet<usize>,
    /// What became of each record, and how often.
    ended: BTreeMap<i64, usize>,
}

#[derive(Debug)]
struct Model {
    by_key: bool,
    committed: State,
    open: State,
    touched: BTreeSet<i64>,
    now: i64,
    answered: i64,
    tokens: Vec<Token>,
    logins: Vec<Login>,
    /// Outcome with reason or effect, and offset, of each decision in the open batch.
    expected: Vec<(String, i64)>,
}

impl Model {
    fn expect(&mut self, what: impl Into<String>, offset: i64) {
        self.expected.push((what.into(), offset));
    }

    fn put(&mut self, offset: i64, held: Held) {
        self.touched.insert(offset);
        self.open.held.insert(offset, held);
    }

    fn end(&mut self, offset: i64, what: &str) {
        if let Some(held) = self.open.held.remove(&offset) {
            self.touched.insert(offset);
            let asked = held.asked.unwrap_or_else(|| Asked::none(self.now));
            if what == "forward" && !asked.answers.is_empty() {
                let good = self.good(&asked);
                let needed = asks(held.invoice).map_or(0, |(.., needed)| needed);
                assert!(good >= needed, "a grant is used twice");
            }
            self.open.spent.extend(asked.answers.iter().map(|(token, _)| *token));
        }
        *self.open.ended.entry(offset).or_default() += 1;
        self.expect(what, offset);
    }

    fn record(&mut self, offset: i64, invoice: &'static str, key: &'static str, grant: Option<usize>) {
        if let Some(held) = self.open.held.get(&offset) {
            let what = if held.asked.is_some() { "hold" } else { "wait" };
            return self.expect(what, offset);
        }
        if invoice == "frozen" {
            return self.end(offset, "deny forbidden");
        }
        let of_key: Vec<_> = self.open.held.values().filter(|held| self.by_key && held.key == key).collect();
        let waiting = of_key.iter().filter(|held| held.asked.is_none()).count();
        if !of_key.is_empty() && waiting >= MAX_WAITING {
            return self.end(offset, "deny step_up_required");
        }
        if !of_key.is_empty() {
            self.put(offset, Held { invoice, key, grant, asked: None });
            return self.expect("wait", offset);
        }
        self.first(offset, Held { invoice, key, grant, asked: None });
    }

    /// A record that nothing was asked about yet, and that waits for no other.
    fn first(&mut self, offset: i64, held: Held) {
        let Some((hold_s, grant_s, needed)) = asks(held.invoice) else { return self.end(offset, "forward") };
        let mut answers = Vec::new();
        if let Some(grant) = held.grant {
            let token = &self.tokens[grant];
            let good_until = token.at + grant_s * 1000;
            let same = token.digest && token.challenge.digest == self.digest(&held);
            let counts = self.now <= token.at + 3_600_000 + SKEW_MS
                && token.approve
                && same
                && !["alice", "mallory"].contains(&token.who)
                && !self.open.spent.contains(&grant)
                && self.now <= good_until + SKEW_MS;
            if !counts {
                return self.end(offset, "deny step_up_invalid");
            }
            answers.push((grant, good_until));
        }
        if answers.len() >= needed && !asks_for_login(held.invoice) {
            for (token, _) in &answers {
                assert!(self.open.spent.insert(*token), "a grant is used twice");
            }
            return self.end(offset, "forward");
        }
        let asked =
            Asked { asked_at: self.now, until: self.now + hold_s * 1000, answers, ..Asked::none(self.now) };
        self.put(offset, Held { asked: Some(asked), ..held });
        self.expect("hold", offset);
    }

    /// The digest of a request, where a challenge of the same one has been seen.
    fn digest(&self, held: &Held) -> String {
        let same = |token: &&Token| {
            token.challenge.resource.id == held.invoice && self.key_of(&token.challenge) == held.key
        };
        self.tokens.iter().find(same).map_or(String::new(), |token| token.challenge.digest.clone())
    }

    fn key_of(&self, challenge: &Challenge) -> &'static str {
        // Offsets of one key are even, of the other odd: the challenge does not name its key.
        KEYS[usize::try_from(challenge.offset % 2).unwrap()]
    }

    fn answer(&mut self, token: usize) {
        let Token { who, approve, digest, challenge, at, .. } = self.tokens[token].clone();
        let found = self.open.held.get(&challenge.offset).cloned();
        let current =
            found.clone().and_then(|held| held.asked).filter(|asked| asked.asked_at == challenge.asked_at);
        let offset = if current.is_some() { challenge.offset } else { -1 };
        if self.now > at + 3_600_000 + SKEW_MS {
            return self.expect("answer invalid", offset);
        }
        let (Some(held), Some(mut asked)) = (found, current) else { return self.expect("answer stray", -1) };
        let grant_s = asks(held.invoice).unwrap().1;
        let good_until = at + grant_s * 1000;
        let effect = if !digest {
            "invalid"
        } else if who == "alice" {
            "requester"
        } else if self.open.spent.contains(&token) {
            "spent"
        } else if who == "mallory" {
            "not_permitted"
        } else {
            self.add(&mut asked, &held, token, (who, approve, good_until))
        };
        if effect == "counted" {
            self.put(offset, Held { asked: Some(asked), ..held });
        }
        self.expect(format!("answer {effect}"), offset);
    }

    fn login(&mut self, login: usize) {
        let Login { challenge, issued, own, .. } = self.logins[login].clone();
        let found = self.open.held.get(&challenge.offset).cloned();
        let current =
            found.clone().and_then(|held| held.asked).filter(|asked| asked.asked_at == challenge.asked_at);
        let (Some(held), Some(mut asked)) = (found, current) else { return self.expect("answer stray", -1) };
        let fits = asks_for_login(held.invoice)
            && own
            && issued + SKEW_MS >= asked.asked_at
            && self.logins[login].is_valid(self.now)
            && self.logins[login].is_fresh(self.now);
        let effect = match asked.login {
            _ if !fits => "invalid",
            Some(before) if self.logins[before].text == self.logins[login].text => "second",
            Some(before) if issued < self.logins[before].issued => "second",
            _ if asked.status == Status::Refused || self.now >= asked.until => "late",
            _ => "counted",
        };
        if effect == "counted" {
            (asked.login, asked.due) = (Some(login), true);
            self.put(challenge.offset, Held { asked: Some(asked), ..held });
        }
        self.expect(format!("answer {effect}"), challenge.offset);
    }

    fn add(&self, asked: &mut Asked, held: &Held, token: usize, of: (&str, bool, i64)) -> &'static str {
        let (who, approve, good_until) = of;
        let standing = asked.answers.iter().find(|(token_of, until)| {
            let other = &self.tokens[*token_of];
            let refused = asked.status == Status::Refused;
            other.who == who && (refused || self.is_good(*token_of, *until))
        });
        if let Some((other, _)) = standing {
            return if self.tokens[*other].approve == approve { "second" } else { "contradictory" };
        }
        match (asked.status, approve) {
            (Status::Approved, false) | (Status::Refused, true) => return "contradictory",
            (Status::Approved | Status::Refused, _) => return "late",
            _ if self.now >= asked.until => return "late",
            _ if self.now > good_until + SKEW_MS => return "invalid",
            _ => {}
        }
        asked.answers.retain(|(other, _)| self.tokens[*other].who != who);
        asked.answers.push((token, good_until));
        let good = self.good(asked);
        if !approve {
            asked.status = Status::Refused;
        } else if (1..=good).contains(&asks(held.invoice).unwrap().2) {
            asked.status = Status::Approved;
        }
        "counted"
    }

    fn good(&self, asked: &Asked) -> usize {
        asked.answers.iter().filter(|(token, until)| self.is_good(*token, *until)).count()
    }

    /// An approval that has not run out, and that no other record has used.
    fn is_good(&self, token: usize, until: i64) -> bool {
        self.tokens[token].approve && self.now <= until + SKEW_MS && !self.open.spent.contains(&token)
    }

    /// Whose turn has come, in what is committed and not touched since.
    fn due(&self) -> BTreeMap<i64, Turn> {
        let turn = |(offset, held): (&i64, &Held)| {
            let turn = match &held.asked {
                None => {
                    let earlier = |(other, of): (&i64, &Held)| other < offset && of.key == held.key;
                    (!self.committed.held.iter().any(earlier)).then_some(Turn::Decide)
                }
                Some(asked) if asked.status != Status::Open || asked.due => Some(Turn::Decide),
                Some(asked) if asked.until < self.answered.min(self.now) => Some(Turn::TimedOut),
                Some(asked) => (asked.until >= self.now && self.reminders(asked) > asked.reminders)
                    .then_some(Turn::Remind),
            };
            turn.map(|turn| (*offset, turn))
        };
        self.committed
            .held
            .iter()
            .filter(|(offset, _)| !self.touched.contains(*offset))
            .filter_map(turn)
            .collect()
    }

    fn reminders(&self, asked: &Asked) -> usize {
        let life = asked.until - asked.asked_at;
        [life / 2, life / 10 * 9].into_iter().filter(|after| asked.asked_at + after <= self.now).count()
    }

    fn turn(&mut self, offset: i64, turn: Turn) {
        let held = self.open.held[&offset].clone();
        let Some(mut asked) = held.asked.clone() else { return self.first(offset, held) };
        let valid = asked.login.filter(|login| self.logins[*login].is_valid(self.now));
        let fresh = valid.is_some_and(|login| self.logins[login].is_fresh(self.now));
        match (turn, asked.status) {
            (Turn::Remind, _) => {
                asked.reminders = self.reminders(&asked);
                self.put(offset, Held { asked: Some(asked), ..held });
            }
            (_, Status::Refused) => self.end(offset, "deny step_up_refused"),
            (Turn::TimedOut, _) => self.end(offset, "deny step_up_timed_out"),
            _ if self.good(&asked) >= asks(held.invoice).unwrap().2
                && (fresh || !asks_for_login(held.invoice)) =>
            {
                self.end(offset, "forward");
            }
            _ => {
                (asked.status, asked.login, asked.due) = (Status::Open, valid, false);
                self.put(offset, Held { asked: Some(asked), ..held });
                self.expect("hold", offset);
            }
        }
    }

    fn begin(&mut self) {
        self.open = self.committed.clone();
        self.touched.clear();
        self.expected.clear();
    }

    fn commit(&mut self) {
        self.committed = self.open.clone();
        self.touched.clear();
        self.expected.clear();
    }
}

struct Run {
    world: World,
    model: Model,
    /// What was sent: offset, invoice, key, grant.
    sent: Vec<(i64, &'static str, &'static str, Option<usize>)>,
    compared: usize,
}

impl Run {
    fn new(order: Order) -> Self {
        let world = World::new(order);
        let model = Model {
            by_key: order == Order::Key,
            committed: State::default(),
            open: State::default(),
            touched: BTreeSet::new(),
            now: world.now.0,
            answered: i64::MIN,
            tokens: Vec::new(),
            logins: Vec::new(),
            expected: Vec::new(),
        };
        Self { world, model, sent: Vec::new(), compared: 0 }
    }

    fn send(&mut self, offset: i64, invoice: &'static str, key: &'static str, grant: Option<usize>) {
        let token = grant.map(|grant| self.model.tokens[grant].text.clone());
        let record = self.world.pay_as(offset, key, invoice, token.as_deref());
        self.world.record(&record);
        self.model.record(offset, invoice, key, grant);
    }

    fn commit(&mut self) {
        self.world.commit();
        let audits = &self.world.audits[self.compared..];
        let said = audits.iter().map(|audit| {
            let effect = audit.answer.as_ref().map(|said| said.effect.as_str());
            let more = effect.or(audit.reason.as_deref());
            (more.map_or(audit.outcome.to_string(), |more| format!("{} {more}", audit.outcome)), audit.offset)
        });
        assert_eq!(said.collect::<Vec<_>>(), self.model.expected);
        self.compared = self.world.audits.len();
        self.model.commit();
        assert_eq!(self.world.state.holds.len(), self.model.committed.held.len());
    }

    fn turns(&mut self) {
        let expected = self.model.due();
        let due = self.world.turns_of(usize::MAX);
        let found: BTreeMap<_, _> = due.iter().map(|due| (due.source.0, due.turn)).collect();
        assert_eq!(found, expected);
        for due in due {
            self.model.turn(due.source.0, due.turn);
        }
    }

    fn step(&mut self, op: Op) {
        let tokens = self.model.tokens.len();
        match op {
            Op::Record { invoice, key, grant } => {
                let parity = i64::try_from(key).unwrap();
                let offset = 2 * i64::try_from(self.sent.len()).unwrap() + parity;
                let grant = grant.filter(|_| tokens > 0).map(|grant| grant % tokens);
                self.sent.push((offset, INVOICES[invoice], KEYS[key], grant));
                self.send(offset, INVOICES[invoice], KEYS[key], grant);
            }
            Op::Redeliver(sent) if !self.sent.is_empty() => {
                let (offset, invoice, key, grant) = self.sent[sent % self.sent.len()];
                // A record that was ended is not read again, unless its batch was aborted.
                if self.model.open.ended.contains_key(&offset) {
                    return;
                }
                self.send(offset, invoice, key, grant);
            }
            Op::Answer { challenge, who, approve, digest } => {
                let told = &self.world.told;
                let Some(challenge) = told.iter().rev().nth(challenge).or(told.last()).cloned() else {
                    return;
                };
                let decision = if approve { "approve" } else { "refuse" };
                let text = self.world.grant_with(&challenge, PEOPLE[who], decision, |claims| {
                    if !digest {
                        claims["digest"] = "AAAA".into();
                    }
                });
                let at = self.world.now.0 / 1000 * 1000;
                let token = Token { text: text.clone(), who: PEOPLE[who], approve, digest, challenge, at };
                self.model.tokens.push(token);
                self.world.answer(text);
                self.model.answer(tokens);
            }
            Op::Login { challenge, strong, age, issued, life, own } => {
                let told = &self.world.told;
                let Some(challenge) = told.iter().rev().nth(challenge).or(told.last()).cloned() else {
                    return;
                };
                let at = self.world.now.0 / 1000;
                let (authenticated, issued, expires) = (at - age, at - issued, at - issued + life);
                let text = self.world.fresh_with(|claims| {
                    (claims["iat"], claims["exp"]) = (issued.into(), expires.into());
                    claims["txn"] = if own { "txn-1" } else { "txn-2" }.into();
                    claims["rctx"] = serde_json::json!({
                        "acr": if strong { "phrh" } else { "pwd" }, "auth_time": authenticated,
                    });
                });
                let login = Login {
                    text: text.clone(),
                    challenge: challenge.clone(),
                    strong,
                    authenticated: authenticated * 1000,
                    issued: issued * 1000,
                    expires: expires * 1000,
                    own,
                };
                self.model.logins.push(login);
                self.world.login(text, &challenge.id);
                self.model.login(self.model.logins.len() - 1);
            }
            Op::LoginAgain(login) if !self.model.logins.is_empty() => {
                let login = login % self.model.logins.len();
                let Login { text, challenge, .. } = self.model.logins[login].clone();
                self.world.login(text, &challenge.id);
                self.model.login(login);
            }
            Op::Again(token) if tokens > 0 => {
                let text = self.model.tokens[token % tokens].text.clone();
                self.world.answer(text);
                self.model.answer(token % tokens);
            }
            Op::Wait(seconds) => {
                // A batch is of one moment.
                self.commit();
                self.world.wait(seconds);
                self.model.now = self.world.now.0;
            }
            Op::ReadAnswers => {
                self.world.answered = self.world.now;
                self.model.answered = self.model.now;
            }
            Op::Turns => self.turns(),
            Op::Commit => self.commit(),
            Op::Abort => {
                self.world.abort();
                self.model.begin();
            }
            Op::Restore(compacted) => {
                self.world.restore(compacted);
                self.model.begin();
            }
            Op::Redeliver(_) | Op::Again(_) | Op::LoginAgain(_) => {}
        }
    }

    /// Lets every hold end, and looks at the whole.
    fn finish(mut self) {
        self.commit();
        for _ in 0..200 {
            if self.model.committed.held.is_empty() {
                break;
            }
            self.step(Op::Wait(1000));
            self.step(Op::ReadAnswers);
            self.turns();
            self.commit();
        }
        assert!(self.model.committed.held.is_empty() && self.world.state.holds.is_empty());
        assert!(self.model.committed.ended.values().all(|times| *times == 1), "ended more than once");
        assert_eq!(self.world.outcomes.len(), self.model.committed.ended.len());
        let mut last: BTreeMap<&str, Status> = BTreeMap::new();
        for challenge in &self.world.told {
            let before = last.insert(&challenge.id, challenge.status);
            let settled =
                |status: &Status| !matches!(status, Status::Open | Status::Approved | Status::Refused);
            assert!(!before.as_ref().is_some_and(settled), "{} after {before:?}", challenge.status);
        }
        assert!(last.values().all(|status| !matches!(status, Status::Open | Status::Approved)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_comes_out_as_the_model_says(ops in ops(), by_key in any::<bool>()) {
        let mut run = Run::new(if by_key { Order::Key } else { Order::None });
        for op in ops {
            run.step(op);
        }
        run.finish();
    }
}
