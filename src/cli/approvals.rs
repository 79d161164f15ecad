//! The part of a gate that approvers speak to: the issuers' keys, the challenges, the producer of answers and the HTTP
//! interface over them. Limits: it is started only where `[approvals]` says so.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::clock;
use crate::authorize::ids::UnixMillis;
use crate::authorize::route::Route;
use crate::config::{ApprovalSettings, Settings};
use crate::control::answers::{AnswerTopics, AnswerWriter, AnswersError};
use crate::control::challenges::{ChallengeFollower, Challenges, ChallengesError};
use crate::control::oidc::OidcIssuers;
use crate::serve::approvals::{self, Approvals};
use crate::serve::tls::Tls;
use crate::serve::{ServeError, Server};
use crate::stream::deciding::Gatework;

/// Why approvers cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalsFailure {
    /// The challenges cannot be followed.
    #[error(transparent)]
    Challenges(#[from] ChallengesError),
    /// Answers cannot be written.
    #[error(transparent)]
    Answers(#[from] AnswersError),
    /// A thread that looks after an issuer's keys cannot be started.
    #[error("the keys of the OIDC issuers cannot be looked after: {0}")]
    Issuers(std::io::Error),
    /// The address cannot be had.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// The running interface. Dropping it stops it.
#[derive(Debug)]
pub struct RunningApprovals {
    // In this order: nothing is asked any more once the threads below it end.
    server: Server,
    _follower: ChallengeFollower,
}

impl RunningApprovals {
    /// Starts to serve approvers by the rules of a gate.
    ///
    /// # Errors
    /// [`ApprovalsFailure`]; nothing is left running.
    pub fn start(
        approvals: &ApprovalSettings,
        tls: Option<Tls>,
        settings: &Settings,
        work: &Gatework,
        routes: &[Arc<Route>],
    ) -> Result<Self, ApprovalsFailure> {
        let holding = routes.iter().filter_map(|route| route.holding.as_ref());
        let topics: BTreeSet<_> = holding.map(|holding| holding.challenges.clone()).collect();
        let challenges = Challenges::new().map_err(ChallengesError::from)?;
        let group = &settings.member.group;
        let follower = challenges.follow(&settings.kafka, group, topics, &work.telemetry)?;
        let issuers = OidcIssuers::start(&approvals.issuers, &work.telemetry, now);
        let desks = settings.access.as_ref().and_then(|access| access.answers.clone());
        let parts = Approvals {
            engine: Arc::clone(&work.engine),
            places: AnswerTopics::of(routes.iter().map(Arc::as_ref), desks),
            snapshots: Arc::clone(&work.snapshots),
            issuers: issuers.map_err(ApprovalsFailure::Issuers)?,
            challenges,
            answers: Arc::new(AnswerWriter::new(&settings.kafka)?),
            answers_a_minute: approvals.answers_a_minute,
            clock: now,
            telemetry: work.telemetry.clone(),
        };
        Ok(Self { server: approvals::start(approvals.listen, tls, parts)?, _follower: follower })
    }

    /// Where approvers are served.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

/// The present moment; before 1970 every token is not valid yet.
fn now() -> UnixMillis {
    clock::now().unwrap_or(UnixMillis(0))
}
