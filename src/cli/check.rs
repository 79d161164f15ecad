//! `check`: configuration, keys, policies and schema, with everything that is wrong at once; the topics too, where it is
//! asked to look at the broker. Limits: it changes nothing, on disk or on the broker.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::certificates::Certificates;
use super::{ConfigFile, Exit, Format, Output, clock, environment};
use crate::authorize::ids::UnixMillis;
use crate::authorize::policy::Offer;
use crate::config::{ClientCertificates, Loaded, Problem, Problems, Report};
use crate::control::{EntitiesFrom, Policies, PolicySource, TrustSource, knows_gate, offer};
use crate::stream::admin;

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask the broker as well: are the topics there, and do they fit together
    #[arg(long)]
    online: bool,
}

/// Why the check itself failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CheckError {
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// What was found.
#[derive(Debug, Serialize)]
struct Found<'a> {
    ok: bool,
    errors: usize,
    warnings: usize,
    problems: Vec<Report<'a>>,
    routes: Vec<FoundRoute>,
    trust: Option<String>,
    policies: Option<FoundPolicies>,
    /// Every topic that is there, with its partition count; absent where the broker was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<BTreeMap<String, i32>>,
}

#[derive(Debug, Serialize)]
struct FoundRoute {
    name: String,
    from: Vec<String>,
    to: String,
    denied: String,
    audit: String,
}

#[derive(Debug, Serialize)]
struct FoundPolicies {
    count: usize,
    bundle: String,
    version: Option<String>,
    entities: usize,
    /// The longest `@hold`, in seconds.
    #[serde(skip)]
    longest_hold_s: Option<u32>,
}

impl Check {
    /// Checks, and writes what was found: 0 if a gate can start, 2 if not.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, CheckError> {
        let loaded = Loaded::read(&self.file.config, environment());
        let mut problems = loaded.problems.clone();
        let trust = check_trust(&loaded, &mut problems);
        check_certificates(&loaded, &mut problems);
        let policies = check_policies(&loaded, &mut problems);
        let longest = policies.as_ref().and_then(|policies| policies.longest_hold_s);
        let topics = self.online.then(|| check_topics(&loaded, longest, &mut problems)).flatten();
        let found = Found {
            ok: !problems.stop(),
            errors: problems.iter().filter(|problem| problem.is_error()).count(),
            warnings: problems.iter().filter(|problem| !problem.is_error()).count(),
            problems: problems.iter().map(Problem::report).collect(),
            routes: routes(&loaded),
            trust,
            policies,
            topics,
        };
        match out.format() {
            Format::Json => out.json_line(&found)?,
            Format::Human => write(out, &problems, &found)?,
        }
        Ok(if found.ok { Exit::Done } else { Exit::No })
    }
}

fn check_trust(loaded: &Loaded, problems: &mut Problems) -> Option<String> {
    let trust = match TrustSource::read(&loaded.trust).load() {
        Ok(trust) => trust,
        Err(found) => {
            problems.append(found);
            return None;
        }
    };
    let access = loaded.config.as_ref().and_then(|config| config.settings.access.as_ref()?.tls.as_ref());
    if access.is_some_and(|tls| tls.clients == ClientCertificates::Spiffe) && !trust.has_authorities() {
        problems.push(
            Problem::warning("`access.tls.clients` is `spiffe`, and no SPIFFE bundle has an X.509 authority").help(
                "a bundle holds them as keys of use `x509-svid` with `x5c`; until one does, no client certificate is taken",
            ),
        );
    }
    if let Some(config) = &loaded.config
        && !knows_gate(&trust, &config.gate.id, config.gate.key())
    {
        let domain = config.gate.id.trust_domain();
        problems.push(
            Problem::warning(format!("the gate's key is not among the gates of `{domain}`"))
                .within(config.gate.key_file.display().to_string())
                .help(format!(
                    "put its public half into `gates` of `[trust.\"{domain}\"]`, or no worker and no next gate will take \
                     what it signs; `countersign keys public` prints it"
                )),
        );
    }
    Some(trust.version().to_string())
}

/// The certificates of the HTTP interfaces.
fn check_certificates(loaded: &Loaded, problems: &mut Problems) {
    let Some(config) = &loaded.config else { return };
    let now = clock::now().unwrap_or(UnixMillis(0));
    match Certificates::load(&config.settings, now) {
        Ok(certificates) => problems.append(certificates.warnings),
        Err(found) => problems.append(found),
    }
}

fn check_policies(loaded: &Loaded, problems: &mut Problems) -> Option<FoundPolicies> {
    let settings = loaded.policy.as_ref()?;
    // Where a route could not be read, nobody knows what is offered: the schema gets the benefit of the doubt.
    let offered = match &loaded.config {
        Some(_) => offer(&loaded.routes, &settings.subject_type),
        None => Offer {
            transaction: true,
            countersignature: true,
            value: true,
            subject_type: Some(settings.subject_type.clone()),
        },
    };
    match PolicySource::read(&settings.path).load(&offered, EntitiesFrom::of(&loaded.control)) {
        Ok((Policies { bundle, entities }, warnings)) => {
            problems.append(warnings);
            if !bundle.knows_answers() {
                warn_of_holding(loaded, problems);
            }
            Some(FoundPolicies {
                count: bundle.policy_count(),
                bundle: bundle.digest().to_string(),
                version: bundle.version().map(ToString::to_string),
                entities: entities.len(),
                longest_hold_s: bundle.longest_hold_s(),
            })
        }
        Err(found) => {
            problems.append(found);
            None
        }
    }
}

/// A route that holds records of which nobody could ever approve: they wait until they are out of time.
fn warn_of_holding(loaded: &Loaded, problems: &mut Problems) {
    for settings in loaded.routes.iter().filter(|settings| settings.route.holding.is_some()) {
        let name = &settings.route.name;
        problems.push(
            Problem::warning(format!("the route `{name}` holds records, and nobody could approve of one"))
                .within(format!("route `{name}`"))
                .help(
                    "give the schema an entity `Challenge` and `action answer appliesTo { principal: [User], resource: \
                     [Challenge], context: {} };`, and write a policy that permits it",
                ),
        );
    }
}

/// Asks the broker. Topics that the gate would make itself are no problem.
fn check_topics(
    loaded: &Loaded,
    longest_hold_s: Option<u32>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, i32>> {
    let config = loaded.config.as_ref()?;
    let mut sources = admin::source_topics(&config.settings.routes);
    admin::hold_for(&mut sources, Duration::from_secs(longest_hold_s.unwrap_or(0).into()));
    let report =
        match admin::inspect(&config.settings.kafka, &sources, &admin::Others::of(&config.settings), false) {
            Ok(report) => report,
            Err(error) => {
                let help = "is `bootstrap.servers` in `[kafka]` right, and the broker up?";
                problems.push(Problem::error(error.to_string()).help(help));
                return None;
            }
        };
    for problem in &report.problems {
        problems.push(Problem::error(problem.to_string()).help(problem.help()));
    }
    for warning in &report.warnings {
        problems.push(Problem::warning(warning.to_string()));
    }
    Some(report.facts.iter().map(|(topic, facts)| (topic.to_string(), facts.partitions)).collect())
}

fn routes(loaded: &Loaded) -> Vec<FoundRoute> {
    let found = loaded.routes.iter().map(|settings| FoundRoute {
        name: settings.route.name.to_string(),
        from: settings.route.from.iter().map(ToString::to_string).collect(),
        to: settings.route.to.to_string(),
        denied: settings.route.denied.to_string(),
        audit: settings.route.audit.to_string(),
    });
    found.collect()
}

fn write(out: &mut Output, problems: &Problems, found: &Found<'_>) -> io::Result<()> {
    for problem in problems.iter() {
        out.diagnostic(problem)?;
    }
    let data = out.data();
    for route in &found.routes {
        writeln!(
            data,
            "route {}: {} -> {}, denied to {}",
            route.name,
            route.from.join(", "),
            route.to,
            route.denied
        )?;
    }
    if let Some(policies) = &found.policies {
        writeln!(
            data,
            "policies: {}, bundle {}; entities: {}",
            policies.count, policies.bundle, policies.entities
        )?;
    }
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (found.errors, found.warnings) {
        (0, 0) => writeln!(data, "all is well"),
        (0, warnings) => writeln!(data, "a gate can start; {}", plural(warnings, "warning")),
        (errors, 0) => writeln!(data, "a gate cannot start: {}", plural(errors, "error")),
        (errors, warnings) => {
            writeln!(
                data,
                "a gate cannot start: {}, {}",
                plural(errors, "error"),
                plural(warnings, "warning")
            )
        }
    }
}
