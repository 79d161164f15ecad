//! Two gates of one group under fire: killed, joined and left, while records are held, answered and released. Every record
//! ends once, as its answers say. The kills: 30, or `COUNTERSIGN_TEST_KILLS` for a long run.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::office::Office;
use super::stories::History;
use super::traffic::{PLAN, Stop, Traffic};
use crate::gate::{Dice, GateProcess, Ledger, Site, alone};

const KILLS_VARIABLE: &str = "COUNTERSIGN_TEST_KILLS";
const KILLS: u32 = 30;
/// After so many kills a third gate comes, and goes.
const KILLS_A_VISIT: u32 = 6;
/// One of so many visitors dies, and the others have to find out.
const VISITS_A_DEATH: u32 = 3;

fn kills() -> u32 {
    std::env::var(KILLS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
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
    let Some(office) = Office::new(test, PLAN) else { return };
    let _alone = alone();
    let (site, began) = (&office.site, Instant::now());
    let mut dice = Dice::new("step_up::fire");
    // The gates make the topics of held records.
    site.start_ready(Some("one")).terminate();
    let mut fire = Fire::default();
    let stop = AtomicBool::new(false);
    let (ledger, gates) = std::thread::scope(|scope| {
        let traffic = Traffic::new(&office, dice.another());
        let traffic = scope.spawn(|| traffic.run(&stop, Ledger::default));
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
