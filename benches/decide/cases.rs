//! Cases that are timed in turns, so that a slow moment of the machine meets all of them. Limits: medians of one thread; what is
//! counted is the thread's own time on a core, so that others who want the core do not count, though they cool its caches.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The time that this thread has had a core for.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of Linux").into()
}

/// One thing that is timed; the number is how many operations a call makes.
pub struct Case<'a> {
    pub name: String,
    run: Box<dyn FnMut() -> usize + 'a>,
    ns: Vec<f64>,
}

impl<'a> Case<'a> {
    pub fn new(name: impl Into<String>, run: impl FnMut() -> usize + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run), ns: Vec::new() }
    }

    /// The median of all rounds, in microseconds.
    pub fn us(&self) -> f64 {
        let mut ns = self.ns.clone();
        ns.sort_by(f64::total_cmp);
        ns.get(ns.len() / 2).copied().unwrap_or_default() / 1000.0
    }
}

/// Runs all cases in turn, each for about a millisecond or one call, until the time is over.
pub fn measure(cases: &mut [Case<'_>], quick: bool) {
    let (rounds, slice) = if quick { (1, Duration::ZERO) } else { (150, Duration::from_millis(4)) };
    for round in 0..rounds + 1 {
        for case in &mut *cases {
            let (began, before, mut done) = (Instant::now(), busy(), 0);
            while done == 0 || began.elapsed() < slice {
                done += (case.run)();
            }
            let spent = busy().saturating_sub(before);
            // The first round warms caches.
            if round > 0 {
                case.ns.push(spent.as_nanos() as f64 / done as f64);
            }
        }
    }
}
