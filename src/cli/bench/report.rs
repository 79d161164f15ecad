//! The figures of all turns, put together: a row for each contestant, and the aims beside what was measured. Limits:
//! ratios are taken within a round, where both had the same machine, and the median of the rounds counts.

use serde::Serialize;

use super::contestant::Contestant;
use super::signatures::Signatures;
use super::stats::Spread;
use super::turn::{Latency, Turn};

/// The same job built well on Kafka Streams with cedar-java, in records a second on two cores beside its broker.
const STREAMS: f64 = 7_900.0;

/// What a contestant has shown in all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) contestant: Contestant,
    pub(super) per_second: Option<Spread>,
    /// Its speed by that of the copy, exactly once.
    pub(super) of_copy: Option<Spread>,
    pub(super) cpu_us: Option<Spread>,
    pub(super) broker_cpu_us: Option<Spread>,
    pub(super) full: Tail,
    pub(super) half: Tail,
    pub(super) tenth: Tail,
}

/// Latencies of all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Tail {
    pub(super) per_second: Option<Spread>,
    pub(super) p50_ms: Option<Spread>,
    pub(super) p99_ms: Option<Spread>,
}

/// Something that is wished for.
#[derive(Debug, Serialize)]
pub(super) struct Aim {
    /// What.
    pub(super) aim: &'static str,
    /// What was found.
    pub(super) found: String,
    /// Whether that is it.
    pub(super) met: bool,
}

/// Where the microseconds go that a proof costs more than none.
#[derive(Debug, Serialize)]
pub(super) struct Gap {
    /// Processor time that a record with proof costs more than one without.
    pub(super) gap_us: f64,
    /// One signature verified: the proof's. Identity and transaction are verified once and remembered.
    pub(super) signatures_us: f64,
    /// What copying the tokens costs, by the two copies.
    pub(super) bytes_us: Option<f64>,
}

/// All turns of a run.
pub(super) struct Results {
    pub(super) turns: Vec<Turn>,
    pub(super) signatures: Vec<Signatures>,
}

impl Results {
    /// A row for each contestant that had a turn.
    pub(super) fn rows(&self) -> Vec<Row> {
        let measured = Contestant::ALL.into_iter().filter(|one| self.of(*one).next().is_some());
        measured
            .map(|contestant| Row {
                contestant,
                per_second: Spread::of(self.of(contestant).map(|turn| turn.speed.per_second)),
                of_copy: self.ratio(contestant, Contestant::Copy),
                cpu_us: Spread::of(self.of(contestant).filter_map(|turn| turn.speed.cpu_us)),
                broker_cpu_us: Spread::of(self.of(contestant).filter_map(|turn| turn.speed.broker_cpu_us)),
                full: self.tail(contestant, |turn| turn.full),
                half: self.tail(contestant, |turn| turn.half),
                tenth: self.tail(contestant, |turn| turn.tenth),
            })
            .collect()
    }

    /// What signatures cost, over all rounds.
    pub(super) fn signatures(&self) -> Option<Signatures> {
        let median = |of: fn(&Signatures) -> f64| Some(Spread::of(self.signatures.iter().map(of))?.median);
        Some(Signatures { verify_us: median(|s| s.verify_us)?, sign_us: median(|s| s.sign_us)? })
    }

    /// Where the microseconds go that a proof costs, if both gates and the signatures were measured.
    pub(super) fn gap(&self) -> Option<Gap> {
        let more = |one: Contestant, than: Contestant| {
            let pairs = self.pairs(one, than);
            Some(
                Spread::of(pairs.filter_map(|(one, than)| Some(one.speed.cpu_us? - than.speed.cpu_us?)))?
                    .median,
            )
        };
        Some(Gap {
            gap_us: more(Contestant::GateProven, Contestant::GateUnproven)?,
            signatures_us: self.signatures()?.verify_us,
            bytes_us: more(Contestant::CopyProven, Contestant::Copy),
        })
    }

    /// The aims that can be held against what was measured.
    pub(super) fn aims(&self) -> Vec<Aim> {
        let mut aims = Vec::new();
        if let Some(ratio) = self.ratio(Contestant::GateUnproven, Contestant::Copy) {
            aims.push(Aim {
                aim: "unproven senders: at least 80 % of the exactly-once copy",
                found: format!("{:.0} %", ratio.median * 100.0),
                met: ratio.median >= 0.8,
            });
        }
        if let Some(Gap { gap_us, signatures_us, bytes_us }) = self.gap() {
            let bytes =
                bytes_us.map_or_else(String::new, |bytes| format!(", the tokens' bytes {bytes:.0} us"));
            aims.push(Aim {
                aim: "full proofs: what they cost more is signatures",
                found: format!(
                    "{gap_us:.0} us a record more, of that one verification {signatures_us:.0} us ({:.0} %){bytes}",
                    signatures_us / gap_us * 100.0
                ),
                met: gap_us <= signatures_us + bytes_us.unwrap_or_default().max(0.0),
            });
        }
        if let Some(speed) = Spread::of(self.of(Contestant::GateProven).map(|turn| turn.speed.per_second)) {
            aims.push(Aim {
                aim: "full proofs: three times what Kafka Streams does (7,900 a second)",
                found: format!("{:.1} times", speed.median / STREAMS),
                met: speed.median >= 3.0 * STREAMS,
            });
        }
        for (one, aim, beside) in [
            (
                Contestant::GateUnproven,
                "unproven senders at a tenth: p99 under 25 ms",
                "unproven senders at a tenth: p99 within 2x of the copy's",
            ),
            (
                Contestant::GateProven,
                "full proofs at a tenth: p99 under 25 ms",
                "full proofs at a tenth: p99 within 2x of the copy's",
            ),
        ] {
            if let Some(p99) = self.tail(one, |turn| turn.tenth).p99_ms {
                aims.push(Aim { aim, found: format!("{:.1} ms", p99.median), met: p99.median < 25.0 });
            }
            let pairs = self.pairs(one, Contestant::Copy);
            if let Some(times) = Spread::of(pairs.map(|(one, copy)| one.tenth.p99_ms / copy.tenth.p99_ms)) {
                aims.push(Aim {
                    aim: beside,
                    found: format!("{:.1}x", times.median),
                    met: times.median <= 2.0,
                });
            }
        }
        aims
    }

    fn of(&self, contestant: Contestant) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(move |turn| turn.contestant == contestant)
    }

    /// The turns of two contestants in the same round.
    fn pairs(&self, one: Contestant, other: Contestant) -> impl Iterator<Item = (&Turn, &Turn)> {
        self.of(one)
            .filter_map(move |turn| Some((turn, self.of(other).find(|other| other.round == turn.round)?)))
    }

    fn ratio(&self, one: Contestant, by: Contestant) -> Option<Spread> {
        Spread::of(self.pairs(one, by).map(|(one, by)| one.speed.per_second / by.speed.per_second))
    }

    fn tail(&self, contestant: Contestant, of: fn(&Turn) -> Latency) -> Tail {
        let figures =
            |figure: fn(Latency) -> f64| Spread::of(self.of(contestant).map(|turn| figure(of(turn))));
        Tail {
            per_second: figures(|latency| latency.per_second),
            p50_ms: figures(|latency| latency.p50_ms),
            p99_ms: figures(|latency| latency.p99_ms),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::turn::Speed;
    use super::*;

    /// A turn of that speed, cost and tail.
    pub(in super::super) fn turn(contestant: Contestant, round: usize, per_second: f64, cpu_us: f64) -> Turn {
        let latency = Latency {
            per_second: per_second / 10.0,
            records: 100,
            p50_ms: 4.0,
            p99_ms: 400_000.0 / per_second,
        };
        Turn {
            contestant,
            round,
            speed: Speed { per_second, cpu_us: Some(cpu_us), broker_cpu_us: None },
            full: latency,
            half: latency,
            tenth: latency,
            records: 100,
            came_out: 100,
            surplus: 0,
            audited: contestant.audits().then_some(100),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_that_a_slow_one_does_not_mislead() {
        // The second round had half of the machine.
        let turns = [(1, 30_000.0, 27_000.0), (2, 15_000.0, 13_500.0), (3, 30_000.0, 27_000.0)];
        let turns = turns.into_iter().flat_map(|(round, copy, gate)| {
            [turn(Contestant::Copy, round, copy, 20.0), turn(Contestant::GateUnproven, round, gate, 30.0)]
        });
        let results = Results { turns: turns.collect(), signatures: Vec::new() };
        let ratio = results.ratio(Contestant::GateUnproven, Contestant::Copy).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.9, 0.9, 0.9));
        assert_eq!(results.rows().len(), 2);
        assert!(results.gap().is_none());
        let aims = results.aims();
        assert_eq!((aims[0].found.as_str(), aims[0].met), ("90 %", true));
    }

    #[test]
    fn the_gap_is_told_beside_the_signature_and_the_bytes() {
        let turns = vec![
            turn(Contestant::Copy, 1, 30_000.0, 20.0),
            turn(Contestant::CopyProven, 1, 25_000.0, 24.0),
            turn(Contestant::GateUnproven, 1, 20_000.0, 40.0),
            turn(Contestant::GateProven, 1, 10_000.0, 90.0),
        ];
        let signatures = vec![Signatures { verify_us: 40.0, sign_us: 12.0 }];
        let results = Results { turns, signatures };
        let gap = results.gap().unwrap();
        assert_eq!((gap.gap_us, gap.signatures_us, gap.bytes_us), (50.0, 40.0, Some(4.0)));
        let aims = results.aims();
        let find = |aim: &str| aims.iter().find(|found| found.aim.starts_with(aim)).unwrap();
        let gap = find("full proofs: what");
        assert_eq!(
            gap.found,
            "50 us a record more, of that one verification 40 us (80 %), the tokens' bytes 4 us"
        );
        assert!(!gap.met && !find("unproven senders: at least").met && !find("full proofs: three").met);
        assert!(find("unproven senders at a tenth: p99 under").met);
        assert!(
            !find("full proofs at a tenth: p99 under").met && !find("full proofs at a tenth: p99 within").met
        );
    }
}
