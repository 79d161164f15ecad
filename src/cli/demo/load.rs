//! More messages after the story, most of them in order, some of each kind that is not. Limits: on the embedded broker
//! no more than a thousand are under way at once, since it forgets what lies longer than 5 MiB of a partition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::DemoError;
use super::cast::Cast;
use super::observer::{Deeds, Observer};
use super::post::{Envelope, Post};
use super::story::{body, pay};
use super::world::World;
use crate::authorize::decision::Reason;
use crate::cli::interrupt::Flag;
use crate::producer::Context;

/// What came of it.
pub(super) struct Loaded {
    pub(super) sent: u64,
    pub(super) surprises: Vec<String>,
}

const UNDER_WAY: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(30);

struct Senders {
    invoice: Context,
    mail: Context,
}

/// Sends `count` messages and holds their outcomes against what they were made to be.
pub(super) fn run(
    world: &World,
    observer: &Observer,
    cast: &Cast,
    (deeds, count): (&Deeds, u64),
    transaction: &str,
    shows: bool,
    stop: &Flag,
) -> Result<Loaded, DemoError> {
    let senders = Senders {
        invoice: cast.invoice.context(&cast.realm, Some(transaction))?,
        mail: cast.mail.context(&cast.realm, Some(transaction))?,
    };
    let post = Post::new(world.client())?;
    let before = observer.settle(deeds)?;
    observer.count_only();
    let base = observer.decided();
    let bar = bar(count, shows);
    let mut expected = BTreeMap::<&str, u64>::new();
    let mut sent = 0;
    while sent < count && !stop.is_set() {
        let (letter, reason) = message(world, &senders, sent)?;
        post.hand_over(&letter)?;
        *expected.entry(reason.map_or("forwarded", Reason::as_str)).or_default() += 1;
        sent += 1;
        wait(observer, base, sent, UNDER_WAY, &bar)?;
        post.check()?;
    }
    post.flush()?;
    wait(observer, base, sent, 0, &bar)?;
    bar.finish_and_clear();
    let after = observer.totals();
    let mut surprises = Vec::new();
    for (reason, expected) in expected {
        let found = match reason {
            "forwarded" => after.forwarded - before.forwarded,
            reason => {
                let of = |totals: &BTreeMap<String, u64>| totals.get(reason).copied().unwrap_or_default();
                of(&after.by_reason) - of(&before.by_reason)
            }
        };
        if found != expected {
            surprises.push(format!("{expected} of the messages should have been `{reason}`, {found} were"));
        }
    }
    Ok(Loaded { sent, surprises })
}

/// Message number `n`, and why it is denied, if it is.
fn message(world: &World, senders: &Senders, n: u64) -> Result<(Envelope, Option<Reason>), DemoError> {
    let invoice = format!("inv-{}", 10_000 + n);
    let amount = u32::try_from(n % 1000).unwrap_or_default() + 1;
    Ok(match n % 20 {
        14 | 15 => (pay(world, &senders.mail, &invoice, amount)?, Some(Reason::NotPermitted)),
        16 => (pay(world, &senders.invoice, &invoice, amount + 10_000)?, Some(Reason::Forbidden)),
        17 => {
            let mut letter = pay(world, &senders.invoice, &invoice, amount)?;
            letter.value = body("pay", &invoice, amount + 1);
            (letter, Some(Reason::ProofMismatch))
        }
        18 => (pay(world, &senders.invoice, "inv-1006", amount)?, Some(Reason::Forbidden)),
        19 => {
            let letter = pay(world, &senders.invoice, &invoice, amount)?;
            (Envelope { headers: Vec::new(), ..letter }, Some(Reason::ContextMissing))
        }
        _ => (pay(world, &senders.invoice, &invoice, amount)?, None),
    })
}

/// Waits until at most `open` messages have no outcome.
fn wait(observer: &Observer, base: u64, sent: u64, open: u64, bar: &ProgressBar) -> Result<(), DemoError> {
    let mut last = (Instant::now(), 0);
    loop {
        let decided = observer.decided() - base;
        bar.set_position(decided);
        if sent.saturating_sub(decided) <= open {
            return Ok(());
        }
        if decided > last.1 {
            last = (Instant::now(), decided);
        } else if last.0.elapsed() > PATIENCE {
            return Err(DemoError::Missing { seconds: PATIENCE.as_secs(), missing: sent - decided, sent });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bar(count: u64, shows: bool) -> ProgressBar {
    let target = if shows { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} messages decided, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(count), target).with_style(style)
}
