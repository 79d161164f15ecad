//! The partitions that a lane owns: what it has read, what it remembers, and how far each has come from being gained to
//! being ready. Limits: no calls to the log; `restore` makes a partition ready, [`super::lane`] uses it.

use std::collections::VecDeque;
use std::time::Duration;

use super::checkpoint::{self, Checkpoint, CheckpointError};
use super::decider::Remembered;
use crate::authorize::ids::{Offset, Position, UnixMillis};

/// How far a partition has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its stable committed position is asked for.
    Locating(Locating),
    /// Its tree is known, and its position, or `None` where it was never worked on; a barrier has to be written to its
    /// replay partition.
    Opening(Option<Position>),
    /// Its replay partition is read up to the barrier.
    Reading(Reading),
    /// All is restored; reading has to go to its position.
    Restored(Position),
    /// Its records are decided.
    Ready,
    /// One of the topics that go with its source has no partition of its number yet: looked at again at that time.
    Short(Duration),
    /// It cannot be decided until a person has done something; the sentence says what.
    Refused(String),
}

impl Stage {
    /// Whether it is on its way to being decided.
    pub fn is_restoring(&self) -> bool {
        !matches!(self, Self::Ready | Self::Short(_) | Self::Refused(_))
    }
}

/// The search for a stable committed position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locating {
    /// Not asked again before this time.
    pub not_before: Duration,
    /// Set since the position is not settled and the writers of the last one have been fenced.
    pub unsettled: Option<Unsettled>,
    /// How often the position was missing although the partition had been worked on.
    pub missing: u32,
}

/// A position that is still not settled although everybody who is known to have written it has been fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// When they were fenced.
    since: Duration,
    /// When it was last said that nobody settles it.
    told: Option<Duration>,
}

/// By then what was fenced has ended: a position that is unsettled for longer is asked for alone, since no answer comes for any that
/// is asked for with it.
const FENCED: Duration = Duration::from_secs(3);
/// Between two questions for such a position, each of which may be waited for in vain; and once it was said that nobody settles it.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(1);
const FORGOTTEN_PAUSE: Duration = Duration::from_secs(5);
/// A position that is unsettled for so long, longer than any gate's transaction may be open, does not settle by itself. It is
/// said as often.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Unsettled {
    /// Whether it is time to say that nobody settles it.
    pub fn is_forgotten(&self, now: Duration) -> bool {
        now.saturating_sub(self.told.unwrap_or(self.since)) >= FORGOTTEN
    }

    /// Whether that has been said.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    fn is_alone(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= FENCED
    }
}

impl Locating {
    /// Whether its position is asked for alone.
    pub fn is_alone(&self, now: Duration) -> bool {
        self.unsettled.is_some_and(|unsettled| unsettled.is_alone(now))
    }

    /// The position is not settled, although everybody who is known to have written it was fenced.
    pub fn still_unsettled(&mut self, now: Duration) {
        let unsettled = self.unsettled.get_or_insert(Unsettled { since: now, told: None });
        if unsettled.is_forgotten(now) {
            unsettled.told = Some(now);
        }
        if unsettled.is_alone(now) {
            self.not_before = now + if unsettled.is_told() { FORGOTTEN_PAUSE } else { UNSETTLED_PAUSE };
        }
    }
}

/// The reading of what is remembered of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What for.
    pub purpose: Purpose,
    /// Of its replay partition.
    pub replay: Span,
    /// Of its holds partition, where its route holds.
    pub holds: Option<Span>,
    /// How often the position was missing before.
    pub missing: u32,
}

impl Reading {
    /// Whether both have been read.
    pub fn is_done(&self) -> bool {
        self.replay.is_done() && self.holds.is_none_or(Span::is_done)
    }
}

/// What is read of one partition, up to the lane's own barrier in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What is read next.
    pub next: Position,
    /// The lane's own barrier: all that was committed before it has been read when this offset is reached.
    pub barrier: Offset,
}

impl Span {
    /// Whether the barrier has been read.
    pub fn is_done(self) -> bool {
        self.next.0 > self.barrier.0
    }
}

/// Why it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To restore the memory; the position to go on from.
    Restore(Position),
    /// To see whether the partition has been worked on before, since nothing stands beside its position, which is
    /// `None` where there is none at all. `traces` as soon as something was found.
    Probe {
        /// The position, where a person has set one.
        position: Option<Position>,
        /// Whether there is anything.
        traces: bool,
    },
}

/// Who worked on a partition before, as long as it is not known that nothing is left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessors {
    /// Their transactional ids.
    pub writers: Vec<String>,
    /// Up to where the audit partition is settled, and since when it has been no further.
    pub stuck: Option<(Position, Duration)>,
    /// When to look again.
    pub next_look: Duration,
    /// When to stop looking: by then the broker has ended it.
    pub until: Duration,
}

/// A partition that a lane owns.
#[derive(Debug)]
pub struct Owned<S> {
    /// How far it has come.
    pub stage: Stage,
    /// What is remembered of it.
    pub state: S,
    /// The committed position at which `state` stands; `None` before it is restored.
    pub position: Option<Position>,
    /// The first offset that has not been taken into a batch.
    pub next: Position,
    /// When the lane gained it.
    pub gained: Duration,
    /// Who may have left a transaction open.
    pub predecessors: Option<Predecessors>,
    /// Its answers and timers; `None` where its route does not hold.
    pub holding: Option<Holding>,
    /// How long a proof is remembered, by moments of acceptance.
    proofs_live: Duration,
    /// The replay records within the window: their offsets, and the newest acceptance in each.
    window: VecDeque<(Offset, UnixMillis)>,
    /// The offset after the last replay record known.
    replay_end: Position,
}

impl<S: Remembered> Owned<S> {
    /// A partition just gained: nothing is known of it. `holds`: whether its route holds records.
    pub fn gained(now: Duration, proofs_live: Duration, holds: bool) -> Self {
        Self {
            gained: now,
            predecessors: None,
            holding: holds.then(Holding::default),
            proofs_live,
            stage: Stage::Locating(Locating::default()),
            state: S::fresh(proofs_live),
            position: None,
            next: Position(0),
            window: VecDeque::new(),
            replay_end: Position(0),
        }
    }

    /// Whether its records are decided.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Drops what the open batch did, and looks for the committed position again.
    pub fn rewind(&mut self) {
        self.state.abort();
        if let Some(holding) = &mut self.holding {
            holding.rewind();
        }
        if self.is_ready() {
            self.stage = Stage::Locating(Locating::default());
        }
    }

    /// Whether what is remembered is that of this committed position: nothing has happened to the partition since.
    pub fn stands_at(&self, position: Position, metadata: &str) -> bool {
        let turns = |checkpoint: Checkpoint| checkpoint.holding.map(|holding| holding.turns);
        self.position == Some(position)
            && self.holding.as_ref().is_none_or(|holding| {
                Checkpoint::decode(metadata).ok().flatten().and_then(turns) == Some(holding.turns)
            })
    }

    /// Whether to go on from here would leave held records behind that nothing ends any more.
    pub fn would_forget(&self, checkpoint: &Checkpoint) -> bool {
        self.holding.is_none() && checkpoint.holding.is_some_and(|holding| holding.held > 0)
    }

    /// Forgets everything, to be restored to `checkpoint`; `answers` is the committed position of its answers.
    pub fn reset(
        &mut self,
        checkpoint: &Checkpoint,
        answers: Option<Position>,
    ) -> Result<(), super::decider::DecideError> {
        if let Some(holding) = &mut self.holding {
            *holding = Holding::restored(checkpoint.holding.unwrap_or_default(), answers);
        }
        self.state = S::fresh(self.proofs_live);
        self.state.restore_tree(checkpoint.leaves, checkpoint.peaks.clone())?;
        self.position = None;
        self.window.clear();
        self.replay_end = checkpoint.window();
        Ok(())
    }

    /// A replay record at `offset` is part of what is remembered.
    pub fn remember(&mut self, offset: Offset, newest: UnixMillis) {
        self.window.push_back((offset, newest));
        self.passed(offset);
    }

    /// The replay partition reaches past `offset`.
    pub fn passed(&mut self, offset: Offset) {
        self.replay_end = self.replay_end.max(offset.next());
    }

    /// The partition is ready from `position` on.
    pub fn ready(&mut self, position: Position) {
        self.stage = Stage::Ready;
        self.position = Some(position);
        self.next = position;
        if let Some(holding) = &mut self.holding {
            holding.ready();
        }
    }

    /// A batch whose oldest record was accepted at `oldest` is committed: proofs from a window before are forgotten.
    ///
    /// INVARIANT: by moments of acceptance, never by the gate's clock. A backlog is decided long after it was accepted,
    /// and a copy in it must still meet its original.
    pub fn forget(&mut self, oldest: UnixMillis) {
        let window = i64::try_from(self.proofs_live.as_millis()).unwrap_or(i64::MAX);
        let before = UnixMillis(oldest.0.saturating_sub(window));
        self.state.forget(before);
        while self.window.front().is_some_and(|(_, newest)| *newest < before) {
            self.window.pop_front();
        }
    }

    /// Where a successor must begin to read.
    pub fn window_start(&self) -> Position {
        self.window.front().map_or(self.replay_end, |(offset, _)| Position(offset.0))
    }

    /// The metadata of a position committed now; `answers` is where its answers go on, if the transaction decides some.
    pub fn metadata(&self, writers: &[String], answers: Option<Position>) -> Result<String, CheckpointError> {
        let (leaves, peaks) = self.state.tree();
        let holding = self.holding.as_ref().map(|holding| checkpoint::Holding {
            answers: answers.unwrap_or(holding.answers).0,
            held: holding.left.unwrap_or(self.state.held() as u64),
            turns: holding.turns + 1,
        });
        Checkpoint { writers: writers.to_vec(), window_start: self.window_start().0, leaves, peaks, holding }
            .encode()
    }
}

/// The answers and timers of a partition whose route holds records.
#[derive(Debug)]
pub struct Holding {
    /// The first answer that has not been decided, by what is committed.
    pub answers: Position,
    /// The first answer that has not been taken into a batch.
    pub next: Position,
    /// How many transactions have touched the partition.
    pub turns: u64,
    /// How many records its predecessor has left held, until they have been read back.
    pub left: Option<u64>,
    /// The moment up to which every answer that the broker had taken has been decided.
    pub answered: UnixMillis,
    /// The end of the answers that was asked for, and what `answered` is once they have been decided up to it.
    pub asked: Option<(Position, UnixMillis)>,
    /// When it may be asked for again.
    pub next_ask: Duration,
    /// How often in a row a payload was not there.
    pub lacking: u32,
    /// Nothing that needs a payload is taken in before this time.
    pub postponed: Option<Duration>,
}

impl Default for Holding {
    fn default() -> Self {
        Self {
            answers: Position(0),
            next: Position(0),
            turns: 0,
            left: None,
            answered: UnixMillis(i64::MIN),
            asked: None,
            next_ask: Duration::ZERO,
            lacking: 0,
            postponed: None,
        }
    }
}

impl Holding {
    fn restored(checkpoint: checkpoint::Holding, answers: Option<Position>) -> Self {
        let answers = answers.unwrap_or(Position(checkpoint.answers));
        Self {
            answers,
            next: answers,
            turns: checkpoint.turns,
            left: Some(checkpoint.held),
            ..Self::default()
        }
    }

    /// Answers that were taken and not decided are read again.
    pub fn rewind(&mut self) {
        self.next = self.answers;
        self.asked = None;
    }

    fn ready(&mut self) {
        self.left = None;
        self.next = self.answers;
    }

    /// A transaction that touches the partition is committed.
    pub fn turned(&mut self, answers: Option<Position>) {
        self.turns += 1;
        self.answers = answers.unwrap_or(self.answers);
    }
}
