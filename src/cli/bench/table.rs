//! What was measured, on a terminal. Limits: text only; what it says was found elsewhere.

use std::io::{self, Write};

use super::report::{Results, Row, Tail};
use super::stats::Spread;
use super::{Machine, Options};

const TITLE: usize = 23;

/// What is measured, and where.
pub(super) fn opening(out: &mut dyn Write, machine: &Machine, options: &Options) -> io::Result<()> {
    let Options { records, batch, rounds, gates, policies, .. } = options;
    writeln!(
        out,
        "{} cores ({}), {}, broker {}",
        machine.cores, machine.processor, machine.version, machine.broker
    )?;
    writeln!(
        out,
        "{records} records of 1 KB in {} partitions, {batch} a transaction, {gates} process(es) of {} lanes, {policies} \
         policies, {rounds} rounds",
        super::PARTITIONS,
        options.lanes()
    )?;
    writeln!(out)?;
    out.flush()
}

/// The table and the aims.
pub(super) fn closing(out: &mut dyn Write, results: &Results) -> io::Result<()> {
    writeln!(
        out,
        "{:TITLE$} {:>8} {:>13} {:>6} {:>7} {:>7} {:>14} {:>14} {:>14}",
        "", "records", "", "of the", "us a", "broker", "full: ms", "half: ms", "tenth: ms"
    )?;
    writeln!(
        out,
        "{:TITLE$} {:>8} {:>13} {:>6} {:>7} {:>7} {:>14} {:>14} {:>14}",
        "", "a second", "least..most", "copy", "record", "us", "p50 / p99", "p50 / p99", "p50 / p99"
    )?;
    results.rows().iter().try_for_each(|measured| row(out, measured))?;
    if let Some(signatures) = results.signatures() {
        writeln!(
            out,
            "\none Ed25519 signature in this run: {:.1} us to verify, {:.1} us to make",
            signatures.verify_us, signatures.sign_us
        )?;
    }
    let aims = results.aims();
    if !aims.is_empty() {
        writeln!(out)?;
    }
    for aim in aims {
        writeln!(out, "{:7} {}: {}", if aim.met { "met" } else { "NOT MET" }, aim.aim, aim.found)?;
    }
    Ok(())
}

fn row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let median = |spread: Option<Spread>, digits: usize, unit: &str, by: f64| {
        spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.digits$}{unit}", spread.median * by))
    };
    let range =
        row.per_second.map_or_else(String::new, |spread| format!("{:.0}..{:.0}", spread.least, spread.most));
    let tail =
        |tail: &Tail| format!("{} / {}", median(tail.p50_ms, 1, "", 1.0), median(tail.p99_ms, 1, "", 1.0));
    writeln!(
        out,
        "{:TITLE$} {:>8} {:>13} {:>6} {:>7} {:>7} {:>14} {:>14} {:>14}",
        row.contestant.title(),
        median(row.per_second, 0, "", 1.0),
        range,
        median(row.of_copy, 0, " %", 100.0),
        median(row.cpu_us, 1, "", 1.0),
        median(row.broker_cpu_us, 1, "", 1.0),
        tail(&row.full),
        tail(&row.half),
        tail(&row.tenth),
    )
}

#[cfg(test)]
mod tests {
    use super::super::contestant::Contestant;
    use super::super::report::tests::turn;
    use super::super::signatures::Signatures;
    use super::*;

    #[test]
    fn every_contestant_has_a_row_and_every_row_the_same_width() {
        let turns = Contestant::ALL.into_iter().map(|one| turn(one, 1, 12_345.0, 40.0)).collect();
        let results = Results { turns, signatures: vec![Signatures { verify_us: 40.0, sign_us: 12.0 }] };
        let mut out = Vec::new();
        closing(&mut out, &results).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(rows.len(), 2 + Contestant::ALL.len());
        assert!(rows.iter().all(|row| row.chars().count() == rows[0].chars().count()), "{text}");
        assert!(text.contains("40.0 us to verify, 12.0 us to make"), "{text}");
    }
}
