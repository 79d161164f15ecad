//! `bench scaling`: the speed of copies and gates by the number of lanes in one process, and by the number of processes in
//! one group. Limits: on a machine of few cores the broker and the processes share them, and the curve shows it.

use std::io::{self, Write};

use serde::Serialize;

use super::contestant::Contestant;
use super::stats::Spread;
use super::turn::{Speed, Stage, end};
use super::{BenchError, Options};

/// Those whose curve is drawn, unless others are asked for.
const CURVES: [Contestant; 3] = [Contestant::Copy, Contestant::GateUnproven, Contestant::GateProven];

/// How the work is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Shape {
    /// Processes in one group.
    pub(super) gates: usize,
    /// Lanes of each.
    pub(super) lanes: usize,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    contestant: Contestant,
    #[serde(flatten)]
    shape: Shape,
    round: usize,
    speed: Speed,
}

/// The shapes of a machine with so many cores.
fn shapes(cores: usize) -> Vec<Shape> {
    let lanes =
        [1, 2, 4].into_iter().filter(|lanes| *lanes <= cores.max(2)).map(|lanes| Shape { gates: 1, lanes });
    lanes.chain([2, 3].map(|gates| Shape { gates, lanes: 1 })).collect()
}

/// Everybody in each shape, round after round.
pub(super) fn run(
    stage: &Stage<'_>,
    said: &mut dyn FnMut(&Point) -> Result<(), BenchError>,
) -> Result<Vec<Point>, BenchError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut points = Vec::new();
    for round in 1..=stage.options.rounds {
        for shape in shapes(cores) {
            let options = Options { gates: shape.gates, lanes: Some(shape.lanes), ..stage.options.clone() };
            let stage = Stage { options: &options, ..*stage };
            for contestant in CURVES.into_iter().filter(|one| options.asks_for(*one)) {
                let Shape { gates, lanes } = shape;
                let turn = format!("{}-{gates}-{lanes}-{round}", contestant.name());
                let mut entry = stage.enter(contestant, &turn)?;
                stage.fill(contestant, &entry, options.records)?;
                let measured = stage.empty(&mut entry, options.records).and_then(|(children, speed)| {
                    end(children)?;
                    Ok(speed)
                });
                entry.clear(stage.ground);
                let point = Point { contestant, shape, round, speed: measured? };
                said(&point)?;
                points.push(point);
            }
        }
    }
    Ok(points)
}

/// A measurement in a sentence.
pub(super) fn sentence(point: &Point) -> String {
    let Point { contestant, shape: Shape { gates, lanes }, round, speed } = point;
    format!(
        "round {round} {:24} {gates} process(es) of {lanes} lanes: {:.0} a second, {:.1} us a record",
        contestant.name(),
        speed.per_second,
        speed.cpu_us.unwrap_or(f64::NAN)
    )
}

/// The curves.
pub(super) fn table(out: &mut dyn Write, points: &[Point]) -> io::Result<()> {
    let mut shapes: Vec<Shape> = Vec::new();
    for point in points {
        if !shapes.contains(&point.shape) {
            shapes.push(point.shape);
        }
    }
    write!(out, "{:24}", "records a second")?;
    for Shape { gates, lanes } in &shapes {
        write!(out, " {:>18}", format!("{gates} x {lanes} lane(s)"))?;
    }
    writeln!(out)?;
    for contestant in CURVES.into_iter().filter(|one| points.iter().any(|point| point.contestant == *one)) {
        write!(out, "{:24}", contestant.title())?;
        for shape in &shapes {
            let here = points.iter().filter(|point| point.contestant == contestant && point.shape == *shape);
            let speed = Spread::of(here.map(|point| point.speed.per_second));
            let shown = speed.map_or_else(String::new, |speed| format!("{:.0}", speed.median));
            write!(out, " {shown:>18}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_lanes_are_tried_where_there_are_four_cores() {
        let tried = |cores| shapes(cores).iter().map(|shape| (shape.gates, shape.lanes)).collect::<Vec<_>>();
        assert_eq!(tried(1), [(1, 1), (1, 2), (2, 1), (3, 1)]);
        assert_eq!(tried(4), [(1, 1), (1, 2), (1, 4), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_curve_shows_the_median_of_each_shape() {
        let point = |gates, round, per_second| Point {
            contestant: Contestant::Copy,
            shape: Shape { gates, lanes: 1 },
            round,
            speed: Speed { per_second, cpu_us: None, broker_cpu_us: None },
        };
        let points = [point(1, 1, 100.0), point(2, 1, 300.0), point(1, 2, 110.0), point(1, 3, 900.0)];
        let mut out = Vec::new();
        table(&mut out, &points).unwrap();
        let text = String::from_utf8(out).unwrap();
        let figures: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().skip(3).collect();
        assert_eq!(figures, ["110", "300"], "{text}");
    }
}
