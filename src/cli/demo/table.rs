//! What the story looks like on a terminal. Limits: text only; what it says was found elsewhere.

use std::io::{self, Write};

use super::cast::LOGIN;
use super::observer::{Deeds, Totals};
use super::row::{Ending, Row};
use super::story::OPEN;
use super::world::World;

/// Columns of a terminal that everything fits into.
const WIDTH: usize = 100;
const TITLE: usize = 52;
/// Where the reasons stand.
const REASON: usize = 4 + TITLE + 2 + WORD + 2;
const WORD: usize = 9;

/// Before anything runs.
pub(super) fn opening(out: &mut dyn Write, bootstrap: Option<&str>) -> io::Result<()> {
    let text = match bootstrap {
        None => "An embedded broker, a development trust domain, two gates. The broker is librdkafka's mock, which knows no \
                 true transactions: here the gates run at least once. `--bootstrap ADDRESS` tells it exactly once, on a \
                 real cluster."
            .to_owned(),
        Some(address) => format!(
            "The cluster at {address}, a development trust domain, two gates, exactly once, in topics of this run alone."
        ),
    };
    lines(&text, WIDTH).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out)?;
    out.flush()
}

/// The head of the table.
pub(super) fn head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, " #  {:TITLE$}  {:WORD$}  reason", "what happens", "outcome")?;
    writeln!(out, "{}", "─".repeat(WIDTH))?;
    out.flush()
}

/// The title of a chapter.
pub(super) fn chapter(out: &mut dyn Write, title: &str, colored: bool) -> io::Result<()> {
    writeln!(out)?;
    if colored {
        writeln!(out, "\u{1b}[1m{title}\u{1b}[0m")?
    } else {
        writeln!(out, "{title}")?
    }
    out.flush()
}

/// One situation.
pub(super) fn row(out: &mut dyn Write, row: &Row, colored: bool) -> io::Result<()> {
    let color = match row.found {
        Ending::Forwarded | Ending::Done => "32",
        Ending::Held | Ending::Ignored(_) => "33",
        Ending::Denied(_) | Ending::Refused { .. } | Ending::Stopped { .. } => "31",
    };
    let word = format!("{:WORD$}", row.found.word());
    let word = if colored { format!("\u{1b}[{color}m{word}\u{1b}[0m") } else { word };
    let mut reasons = reasons(row).into_iter();
    let first = reasons.next().unwrap_or_default();
    writeln!(out, "{}", format!("{:2}  {:TITLE$}  {word}  {first}", row.number, row.title).trim_end())?;
    for reason in reasons {
        writeln!(out, "{:REASON$}{reason}", "")?;
    }
    for line in row.notes.iter().flat_map(|note| lines(note, WIDTH - 4)) {
        if colored { writeln!(out, "    \u{1b}[2m{line}\u{1b}[0m")? } else { writeln!(out, "    {line}")? }
    }
    if !row.is_as_told() {
        let reason = row.told.because().map(|reason| format!(", {reason}")).unwrap_or_default();
        let after = row.told.after().map(|after| format!(", after {after} steps")).unwrap_or_default();
        writeln!(out, "    NOT AS TOLD: it should have been {}{reason}{after}", row.told.word())?;
    }
    out.flush()
}

/// What the last column says, line by line: the reason, or what a permit or a hold rests on.
fn reasons(row: &Row) -> Vec<String> {
    let reason = match row.found.because() {
        Some(reason) => reason.to_owned(),
        None => row.policies.join(", "),
    };
    lines(&reason, WIDTH - REASON)
}

/// A text in lines of at most so many characters, but for words that are longer.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The totals.
pub(super) fn closing(
    out: &mut dyn Write,
    deeds: &Deeds,
    totals: &Totals,
    surprises: &[String],
) -> io::Result<()> {
    let Deeds { sent, answers, questions } = deeds;
    let Totals { forwarded, denied, held, audited, .. } = totals;
    writeln!(out)?;
    writeln!(out, "{sent} sent: {forwarded} forwarded, {denied} denied; {held} were held first")?;
    writeln!(out, "{answers} answers of people, {questions} questions of workers")?;
    writeln!(out, "{audited} audited: one for each outcome, hold, answer and question")?;
    if surprises.is_empty() {
        writeln!(out, "all of it as told; every forwarded record's countersignature holds")?;
    }
    for surprise in surprises {
        writeln!(out, "not as told: {surprise}")?;
    }
    Ok(())
}

/// What can be done while everything stays up, from another shell.
pub(super) fn staying(out: &mut dyn Write, world: &World) -> io::Result<()> {
    let folder = world.folder().display();
    let topic = world.topic("invoices", "commands").map(|topic| topic.to_string()).unwrap_or_default();
    let config = format!("--config {folder}/invoices.toml");
    let send = |invoice: &str, amount: u32, more: &str| {
        let value = format!("{{\"do\":\"pay\",\"invoice\":\"{invoice}\",\"amount\":{amount}}}");
        let resource = format!("{{\"type\":\"Invoice\",\"id\":\"{invoice}\"}}");
        format!(
            "echo '{{\"key\":\"{invoice}\",\"value\":{value},\"action\":\"pay\",\n\
             \"resource\":{resource}{more}}}' |\n\
             countersign produce {config} --topic {topic} \\\n\
             --key {folder}/keys/agent.jwk --wit {folder}/agent.wit --txn {folder}/alice.txn"
        )
    };
    let of_workflow = format!(
        ",\n\"workflow\":{{\"id\":\"{OPEN}\",\"type\":\"invoice\",\"step\":\"pay\",\"state\":\"running\"}}"
    );
    let answer = format!(
        "countersign challenge list {config}\n\
         countersign challenge approve ID {config} --wait \\\n\
         --issuer {LOGIN} --subject carol --signing-key {folder}/keys/login.jwk"
    );
    let end = format!("countersign workflow end {OPEN} --as cancelled {config}");
    let revoke = format!(
        "countersign revoke {config} --subject alice --reason \"laptop stolen\" \\\n\
         --signing-key {folder}/keys/administrator.jwk"
    );
    writeln!(out, "\nbroker: {}", world.bootstrap())?;
    for (what, how) in [
        ("watch", format!("countersign tail {config} --from-beginning")),
        ("send a payment", send("inv-7", 120, "")),
        ("send one that a manager must agree to", send("inv-8", 4000, "")),
        ("agree to it, as carol", answer),
        ("send a step of a workflow", send("inv-9", 120, &of_workflow)),
        ("end the workflow, and send it again", end),
        ("revoke alice, and send a payment again", revoke),
    ] {
        writeln!(out, "\n{what}:")?;
        for (at, line) in how.lines().enumerate() {
            let continued = line.starts_with("--") || line.starts_with('"');
            writeln!(out, "{}{line}", if at > 0 && continued { "    " } else { "  " })?;
        }
    }
    writeln!(out, "\nCtrl-C ends it")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_to_the_width_and_says_what_it_should_have_been() {
        let found = Ending::Stopped { after: 4, because: "silence".to_owned() };
        let told = Ending::Stopped { after: 4, because: "revoked" };
        let notes = vec!["forbidden by `frozen-invoice`: ".repeat(9)];
        let mut out = Vec::new();
        row(&mut out, &Row { notes, ..Row::of("a job", told, found) }, false).unwrap();
        let policies = ["invoice-agent-causes-bookings".to_owned(), "payments-service-books".to_owned()];
        let forwarded = Row::of("a record", Ending::Forwarded, Ending::Forwarded);
        row(&mut out, &Row { policies: policies.into(), ..forwarded }, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("NOT AS TOLD: it should have been stopped, revoked, after 4 steps"), "{text}");
        assert_eq!(text.matches("NOT AS TOLD").count(), 1, "{text}");
        assert!(text.ends_with(&format!("\n{:REASON$}payments-service-books\n", "")), "{text}");
    }
}
