//! Two gates of one group under fire: killed, joined and left, while records are held, answered and released. Every record
//! ends once, as its answers say. The kills: 30, or `COUNTERSIGN_TEST_KILLS` for a long run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign::authorize::step_up::{Challenge, Status};

use super::PLAN;
use super::office::{Office, answer, needed};
use super::stories::History;
use crate::gate::{Dice, Expect, GateProcess, Ledger, Plan, Sender, Site, alone, wait_for};
use crate::support::kafka::{Follower, NewRecord};

const KILLS_VARIABLE: &str = "COUNTERSIGN_TEST_KILLS";
const KILLS: u32 = 30;
/// After so many kills a third gate comes, and goes.
const KILLS_A_VISIT: u32 = 6;
/// One of so many visitors dies, and the others have to find out.
const VISITS_A_DEATH: u32 = 3;
/// Between two portions.
const BEAT: Duration = Duration::from_millis(100);
const HOLD_MS: u64 = 4_000;

fn kills() -> u32 {
    std::env::var(KILLS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

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
struct Traffic<'o> {
    office: &'o Office,
    sender: Sender,
    ledger: Ledger,
    dice: Dice,
    challenges: Follower,
    planned: Vec<Planned>,
    answers: u64,
}

impl<'o> Traffic<'o> {
    fn new(office: &'o Office, dice: Dice) -> Self {
        let challenges = office.site.broker.follow(office.challenges_topic());
        let (sender, ledger) = (Sender::new(&office.site), Ledger::default());
        Self { office, sender, ledger, dice, challenges, planned: Vec::new(), answers: 0 }
    }

    /// Goes on until it is told to stop, and everything that was held has ended.
    fn run(mut self, stop: &AtomicBool) -> Ledger {
        while !stop.load(Ordering::Acquire) {
            self.send();
            self.answer();
            std::thread::sleep(BEAT);
        }
        let site = &self.office.site;
        let ends = [site.broker.follow(&site.to), site.broker.follow(&site.denied)];
        let mut ended = 0;
        wait_for("every record to end", || {
            self.answer();
            ended += ends.iter().map(|end| end.take().len()).sum::<usize>();
            (ended >= self.ledger.len() && self.planned.is_empty()).then_some(())
        });
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
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What was done to the gates.
#[derive(Debug, Default)]
struct Fire {
    kills: u32,
    /// That left a transaction open.
    within: u32,
    rebalances: u32,
}

impl Fire {
    fn kill(&mut self, site: &Site, gate: GateProcess) {
        gate.kill();
        self.kills += 1;
        self.within += u32::from(!site.broker.is_settled(&site.audit));
    }

    /// Two gates that come back to their own partitions, and a third that comes and goes.
    fn burn(&mut self, site: &Site, dice: &mut Dice, kills: u32) -> Vec<GateProcess> {
        let names = ["one", "two"];
        let mut gates: Vec<GateProcess> = names.iter().map(|name| site.start_ready(Some(name))).collect();
        let mut visits = 0;
        while self.kills < kills {
            let which = usize::try_from(dice.below(2)).expect("one of two");
            // One of four dies while it still starts and restores; the others in the middle of their work.
            if dice.below(4) == 0 {
                pause(dice, 0, 500);
            } else {
                gates[which].wait_ready();
                pause(dice, 100, 900);
            }
            self.kill(site, gates.remove(which));
            gates.insert(which, site.start(Some(names[which])));
            if self.kills % KILLS_A_VISIT == 2 {
                let visitor = site.start_ready(None);
                pause(dice, 500, 1_000);
                visits += 1;
                if visits % VISITS_A_DEATH == 0 {
                    self.kill(site, visitor);
                } else {
                    visitor.terminate();
                }
                self.rebalances += 2;
            }
        }
        gates
    }
}

fn pause(dice: &mut Dice, least_ms: u64, more_ms: u64) {
    std::thread::sleep(Duration::from_millis(least_ms + dice.below(more_ms)));
}

#[test]
fn held_records_end_once_while_two_gates_are_killed_joined_and_left() {
    let test = "held records end once while two gates are killed, joined and left";
    let plan = Plan { batch: 100, lanes: 1, route: "skew = \"1s\"\nhold = \"4s\"", ..PLAN };
    let Some(office) = Office::new(test, plan) else { return };
    let _alone = alone();
    let (site, began) = (&office.site, Instant::now());
    let mut dice = Dice::new("step_up::fire");
    // The gates make the topics of held records.
    site.start_ready(Some("one")).terminate();
    let mut fire = Fire::default();
    let stop = AtomicBool::new(false);
    let (ledger, gates) = std::thread::scope(|scope| {
        let traffic = Traffic::new(&office, dice.another());
        let traffic = scope.spawn(|| traffic.run(&stop));
        let told = Stop(&stop);
        let gates = fire.burn(site, &mut dice, kills());
        drop(told);
        (traffic.join().expect("the traffic did not fail"), gates)
    });
    let burnt = began.elapsed();
    for mut gate in gates {
        gate.wait_ready();
        gate.terminate();
    }
    ledger.settle(site);
    let history = History::of(&office);
    let told = history.check();
    println!(
        "step_up: {} records, {fire:?} in {burnt:?}, checked by {:?}: {told:?}",
        ledger.len(),
        began.elapsed()
    );
    for end in ["forward", "step_up_refused", "step_up_timed_out"] {
        assert!(told.ends.contains_key(end), "{end} never came to be");
    }
    for effect in ["counted", "malformed", "invalid", "stray", "contradictory", "requester", "not_permitted"]
    {
        assert!(told.effects.contains_key(effect), "{effect} never came to be");
    }
    super::doctored::expect_caught(&history);
}
