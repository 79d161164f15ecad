//! Traffic of records that are held and of people who answer, wrongly at times: a thread sends both until it is told to stop.
//! Limits: what must come of it is `stories`'.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign::authorize::step_up::{Challenge, Status};

use super::office::{Office, answer, needed};
use crate::gate::{Dice, Expect, Ledger, Plan, Sender, wait_or_tell};
use crate::support::kafka::{Follower, NewRecord};

/// Between two portions.
const BEAT: Duration = Duration::from_millis(100);
const HOLD_MS: u64 = 4_000;
/// The route that it is made for: it holds for `HOLD_MS`.
pub const PLAN: Plan =
    Plan { batch: 100, lanes: 1, trickles: true, route: "skew = \"1s\"\nhold = \"4s\"", ..super::PLAN };

/// An answer that somebody will give.
struct Planned {
    at: Instant,
    challenge: Challenge,
    who: &'static str,
    decision: &'static str,
    /// For this request.
    fits: bool,
    jti: String,
}

/// Records, and people who answer.
pub struct Traffic<'o> {
    office: &'o Office,
    sender: Sender,
    ledger: Ledger,
    dice: Dice,
    challenges: Follower,
    planned: Vec<Planned>,
    answers: u64,
}

impl<'o> Traffic<'o> {
    /// Nobody has sent or said anything yet.
    pub fn new(office: &'o Office, dice: Dice) -> Self {
        let challenges = office.site.broker.follow(office.challenges_topic());
        let (sender, ledger) = (Sender::new(&office.site), Ledger::default());
        Self { office, sender, ledger, dice, challenges, planned: Vec::new(), answers: 0 }
    }

    /// Goes on until it is told to stop, and everything that was held has ended; all that was sent. `beside` is what somebody
    /// else has sent to the same gates until then.
    pub fn run(mut self, stop: &AtomicBool, beside: impl FnOnce() -> Ledger) -> Ledger {
        while !stop.load(Ordering::Acquire) {
            self.send();
            self.answer();
            std::thread::sleep(BEAT);
        }
        let site = &self.office.site;
        self.ledger.merge(beside());
        self.ledger.place_all(site);
        let ends = [site.broker.follow(&site.to), site.broker.follow(&site.denied)];
        let mut ended = 0;
        let end = || {
            self.answer();
            ended += ends.iter().map(|end| end.take().len()).sum::<usize>();
            (ended >= self.ledger.len() && self.planned.is_empty()).then_some(())
        };
        wait_or_tell("every record to end", end, || site.describe());
        self.office.wait_answered();
        self.ledger
    }

    fn send(&mut self) {
        let count = 1 + self.dice.below(3);
        let records = (0..count)
            .map(|_| match self.dice.below(5) {
                0 | 1 => self.sender.asks("pay", "inv-big", Expect::AsAnswered),
                2 => self.sender.asks("pay", "inv-both", Expect::AsAnswered),
                3 => self.sender.asks("refund", "inv-7", Expect::Deny("not_permitted")),
                _ => self.sender.allowed(),
            })
            .collect();
        self.ledger.send(&self.office.site, records);
    }

    fn answer(&mut self) {
        for record in self.challenges.take() {
            let challenge = self.office.read(&record.value.expect("a challenge"));
            if challenge.status == Status::Open && challenge.answers.is_empty() {
                self.plan(&challenge);
            }
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.planned).into_iter().partition(|one| one.at <= now);
        self.planned = later;
        let due: Vec<Planned> = due;
        let written: Vec<NewRecord> = due.iter().map(|one| self.written(one)).collect();
        if !written.is_empty() {
            self.office.write_all(written);
        }
    }

    fn written(&mut self, one: &Planned) -> NewRecord {
        if one.who.is_empty() {
            return answer(&one.challenge, b"no token".to_vec());
        }
        let digest = if one.fits { &one.challenge.digest } else { "bm90IHRoaXMgb25l" };
        let token = self.office.sign(&one.challenge, one.who, one.decision, digest, &one.jti);
        answer(&one.challenge, token.into_bytes())
    }

    /// What will be said about a challenge, by chance.
    fn plan(&mut self, challenge: &Challenge) {
        // What changes nothing, from everybody, at any time.
        if self.dice.below(3) == 0 {
            for _ in 0..2 {
                let (who, decision, fits) = match self.dice.below(5) {
                    0 => ("alice", "approve", true),
                    1 => ("mallory", "refuse", true),
                    2 => ("carol", "approve", false),
                    3 => ("dave", "refuse", false),
                    _ => ("", "", false),
                };
                self.say(challenge, who, decision, fits, HOLD_MS + 2_000);
            }
        }
        let needed = needed(&challenge.resource.id);
        match self.dice.below(8) {
            // Nobody, or not enough.
            0 => {}
            1 if needed > 1 => self.say(challenge, "carol", "approve", true, 1_000),
            // Too late, or only just not.
            1 => self.say(challenge, "carol", "approve", true, 2 * HOLD_MS),
            2 => self.say(challenge, "dave", "refuse", true, 1_500),
            // They do not agree, and say it twice.
            3 => {
                for (who, decision) in
                    [("carol", "approve"), ("dave", "refuse"), ("carol", "approve"), ("erin", "approve")]
                {
                    self.say(challenge, who, decision, true, 1_500);
                }
            }
            _ => {
                for who in ["carol", "dave"].into_iter().take(needed) {
                    self.say(challenge, who, "approve", true, 1_500);
                }
            }
        }
    }

    fn say(&mut self, of: &Challenge, who: &'static str, decision: &'static str, fits: bool, within_ms: u64) {
        self.answers += 1;
        let at = Instant::now() + Duration::from_millis(self.dice.below(within_ms));
        let jti = format!("f-{}", self.answers);
        self.planned.push(Planned { at, challenge: of.clone(), who, decision, fits, jti });
    }
}

/// Tells the traffic to stop, also where the test fails.
pub struct Stop<'s>(pub &'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
