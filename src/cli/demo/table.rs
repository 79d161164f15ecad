//! What the story looks like on a terminal. Limits: text only; what it says was found elsewhere.

use std::io::{self, Write};

use super::observer::Totals;
use super::stage::{Row, Told};
use super::world::World;

const TITLE: usize = 54;

/// Before anything runs.
pub(super) fn opening(out: &mut dyn Write, bootstrap: Option<&str>) -> io::Result<()> {
    match bootstrap {
        None => writeln!(
            out,
            "An embedded broker, a development trust domain, two gates. The broker is librdkafka's mock, which knows no true\n\
             transactions: here the gates run at least once. `--bootstrap ADDRESS` tells it exactly once, on a real cluster."
        )?,
        Some(address) => writeln!(
            out,
            "The cluster at {address}, a development trust domain, two gates, exactly once, in topics of this run alone."
        )?,
    }
    writeln!(out)?;
    out.flush()
}

/// The head of the table.
pub(super) fn head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, " #  {:TITLE$}  outcome    reason", "what happens")?;
    writeln!(out, "{}", "─".repeat(4 + TITLE + 2 + 11 + 20))?;
    out.flush()
}

/// One situation.
pub(super) fn row(out: &mut dyn Write, row: &Row, colored: bool) -> io::Result<()> {
    let (word, color) = if row.forwarded { ("forwarded", "32") } else { ("denied   ", "31") };
    let word = if colored { format!("\u{1b}[{color}m{word}\u{1b}[0m") } else { word.to_owned() };
    let policies = row.policies.join(", ");
    // What a permit rests on is its reason.
    let reason = row.reason.as_deref().unwrap_or(&policies);
    writeln!(out, "{:2}  {:TITLE$}  {word}  {reason}", row.number, row.title)?;
    if let Some(why) = &row.detail {
        if colored { writeln!(out, "    \u{1b}[2m{why}\u{1b}[0m")? } else { writeln!(out, "    {why}")? }
    }
    if !row.is_as_told() {
        let told = match row.told {
            Told::Forwarded => "forwarded".to_owned(),
            Told::Denied(reason) => format!("denied, {reason}"),
        };
        writeln!(out, "    NOT AS TOLD: it should have been {told}")?;
    }
    out.flush()
}

/// The totals.
pub(super) fn closing(
    out: &mut dyn Write,
    sent: u64,
    totals: &Totals,
    surprises: &[String],
) -> io::Result<()> {
    let Totals { forwarded, denied, audited, .. } = totals;
    writeln!(out)?;
    writeln!(out, "{sent} sent: {forwarded} forwarded, {denied} denied, {audited} audited")?;
    if surprises.is_empty() {
        writeln!(out, "all of it as told; every forwarded record's countersignature holds")?;
    }
    for surprise in surprises {
        writeln!(out, "not as told: {surprise}")?;
    }
    Ok(())
}

/// What can be done while everything stays up.
pub(super) fn staying(out: &mut dyn Write, world: &World) -> io::Result<()> {
    let folder = world.folder().display();
    let topic = world.topic("invoices", "commands").map(|topic| topic.to_string()).unwrap_or_default();
    writeln!(out, "\nbroker: {}", world.bootstrap())?;
    writeln!(out, "watch:  countersign tail --config {folder}/invoices.toml --from-beginning")?;
    writeln!(
        out,
        "send:   echo '{{\"key\":\"inv-7\",\"value\":{{\"do\":\"pay\",\"invoice\":\"inv-7\",\"amount\":120}},\"action\":\"pay\",\
         \"resource\":{{\"type\":\"Invoice\",\"id\":\"inv-7\"}}}}' \\\n          | countersign produce --config \
         {folder}/invoices.toml --topic {topic} \\\n            --key {folder}/keys/agent.jwk --wit {folder}/agent.wit \
         --txn {folder}/alice.txn"
    )?;
    writeln!(out, "Ctrl-C ends it")?;
    out.flush()
}
