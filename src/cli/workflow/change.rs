//! Changing a workflow where others may change it too. Kafka compares nothing before it appends, so a change is read,
//! written and read back. Versions rise by one: a record whose version does not rise was written by somebody who had not
//! seen the one before it, and the writer of the later record mends that: it judges again on top of what it had not
//! seen, and where its own change is no longer allowed it writes the other's state again. Limits: until then readers
//! see the later record as it was first written, and for good where its writer dies in between; a writer that does
//! not read back overwrites without noticing; and a record that was overwritten is found only as long as compaction
//! leaves it, which is as long as it stands in the active segment, and for the topic's `min.compaction.lag.ms`.

use std::time::Duration;

use super::act::{Act, Refusal};
use crate::authorize::ids::{Coordinates, Partition, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::standing::Registered;
use crate::cli::topic::{TopicClient, TopicError};
use crate::wire::workflow::{WorkflowCodec, WorkflowCodecError};

/// How often a change is judged again because somebody else was faster.
const ROUNDS: usize = 8;

/// How often a registry whose last record did not follow the one before it is read again: its writer may be mending it.
const PATIENCE: usize = 4;

/// What a change needs of the registry's topic.
pub(super) trait Log {
    /// All records of the key that are left, in order, and the partition that it lives in.
    ///
    /// # Errors
    /// The topic cannot be read.
    fn history(&self, key: &[u8]) -> Result<(Vec<Record>, Partition), TopicError>;
    /// Appends a record.
    ///
    /// # Errors
    /// The topic cannot be written.
    fn append(
        &self,
        partition: Partition,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Coordinates, TopicError>;
    /// The records of the key after `after` and before `before`, in order.
    ///
    /// # Errors
    /// The topic cannot be read.
    fn between(
        &self,
        key: &[u8],
        after: Option<&Coordinates>,
        before: &Coordinates,
    ) -> Result<Vec<Record>, TopicError>;
    /// Lets others go on for a moment.
    fn rest(&self);
}

/// A change that was made.
#[derive(Debug)]
pub(super) struct Changed {
    /// What the registry says now.
    pub(super) registered: Registered,
    /// Where it stands.
    pub(super) at: Coordinates,
    /// How many other writers were met on the way.
    pub(super) met: usize,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ChangeError {
    /// It is not allowed: an answer, not a failure.
    #[error(transparent)]
    Refused(Refusal),
    /// The registry holds something else under the workflow's id.
    #[error("what the registry holds under `{id}` cannot be read: {problem}")]
    Unreadable {
        /// The workflow.
        id: String,
        /// What is wrong with it.
        problem: WorkflowCodecError,
    },
    /// The new state has no bytes.
    #[error("the workflow cannot be written: {0}")]
    Codec(#[from] WorkflowCodecError),
    /// The topic could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] TopicError),
    /// Others kept writing.
    #[error("others keep writing the workflow `{0}`: its state is theirs or this command's")]
    #[diagnostic(help("look at it with `countersign workflow show`, and try again"))]
    Busy(String),
}

/// What is written next.
enum Next {
    /// The change.
    Ours(Registered),
    /// What somebody else has made of the workflow meanwhile, on top of which the change is refused; `None` forgets it.
    Theirs(Option<Registered>, Refusal),
}

impl Next {
    fn state(&self) -> Option<&Registered> {
        match self {
            Self::Ours(registered) => Some(registered),
            Self::Theirs(registered, _) => registered.as_ref(),
        }
    }
}

/// One change of one workflow.
pub(super) struct Changing<'c, L> {
    /// The registry's topic.
    pub(super) log: &'c L,
    /// Its codec.
    pub(super) codec: &'c WorkflowCodec,
    /// The workflow.
    pub(super) id: &'c str,
    /// What is done to it.
    pub(super) act: &'c Act,
    /// The version that it must have.
    pub(super) expected: Option<i64>,
    /// The present moment.
    pub(super) now: UnixMillis,
}

impl<L: Log> Changing<'_, L> {
    /// Makes the change, or says why not.
    ///
    /// # Errors
    /// It is refused, others kept writing, or the topic fails.
    pub(super) fn run(&self) -> Result<Changed, ChangeError> {
        let key = self.id.as_bytes();
        let (mut stands, mut after, home) = self.present(key)?;
        let mut next = Next::Ours(self.judge(stands.as_ref()).map_err(ChangeError::Refused)?);
        for met in 0..ROUNDS {
            let bytes = next.state().map(|state| self.codec.encode(self.id, state)).transpose()?;
            let at = self.log.append(home, key, bytes.as_deref())?;
            let unseen = self.log.between(key, after.as_ref(), &at)?;
            if !self.follow(&mut stands, &unseen)?.changed {
                return match next {
                    Next::Ours(registered) => Ok(Changed { registered, at, met }),
                    Next::Theirs(_, refusal) => Err(ChangeError::Refused(refusal)),
                };
            }
            after = Some(at);
            next = match self.judge(stands.as_ref()) {
                Ok(again) => Next::Ours(again),
                Err(refusal) => Next::Theirs(self.again(stands.as_ref()), refusal),
            };
        }
        Err(ChangeError::Busy(self.id.to_owned()))
    }

    /// What stands, where its last record is, and the partition that it lives in. Where the last record does not follow
    /// what stood before, its writer gets a moment to mend that; after that it counts, as it does for a gate.
    fn present(
        &self,
        key: &[u8],
    ) -> Result<(Option<Registered>, Option<Coordinates>, Partition), ChangeError> {
        for _ in 0..PATIENCE {
            let (history, home) = self.log.history(key)?;
            let mut stands = None;
            if self.follow(&mut stands, &history)?.last_follows {
                return Ok((stands, history.last().map(|record| record.source.clone()), home));
            }
            self.log.rest();
        }
        let (history, home) = self.log.history(key)?;
        let last = history.last().map(|record| self.read(record)).transpose()?;
        Ok((last.flatten(), history.last().map(|record| record.source.clone()), home))
    }

    /// Takes records in, one after the other: those that follow what stands.
    fn follow(&self, stands: &mut Option<Registered>, records: &[Record]) -> Result<Followed, ChangeError> {
        let mut followed = Followed { changed: false, last_follows: true };
        for record in records {
            let read = self.read(record)?;
            let rises = match (&read, &*stands) {
                (Some(read), Some(stands)) => read.version > stands.version,
                // A workflow that was forgotten, or begins.
                _ => true,
            };
            followed.last_follows = rises;
            if rises {
                followed.changed = true;
                *stands = read;
            }
        }
        Ok(followed)
    }

    /// What stands, one version up, so that it follows what overwrote it.
    fn again(&self, stands: Option<&Registered>) -> Option<Registered> {
        stands.map(|stands| Registered { version: stands.version.saturating_add(1), ..stands.clone() })
    }

    fn judge(&self, present: Option<&Registered>) -> Result<Registered, Refusal> {
        self.act.apply(self.id, present, self.expected, self.now)
    }

    fn read(&self, record: &Record) -> Result<Option<Registered>, ChangeError> {
        let Some(value) = record.value.as_deref() else { return Ok(None) };
        let read = self.codec.decode(self.id.as_bytes(), value);
        read.map(|(_, registered)| Some(registered))
            .map_err(|problem| ChangeError::Unreadable { id: self.id.to_owned(), problem })
    }
}

/// What came of records that were taken in.
struct Followed {
    /// Something else stands now.
    changed: bool,
    /// The last of them is what stands.
    last_follows: bool,
}

impl Log for TopicClient<'_> {
    fn history(&self, key: &[u8]) -> Result<(Vec<Record>, Partition), TopicError> {
        self.read_history(key)
    }

    fn append(
        &self,
        partition: Partition,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Coordinates, TopicError> {
        self.write(partition, key, value)
    }

    fn between(
        &self,
        key: &[u8],
        after: Option<&Coordinates>,
        before: &Coordinates,
    ) -> Result<Vec<Record>, TopicError> {
        let mut records = self.read_between(before.partition, after.map(|at| at.offset), before.offset)?;
        records.retain(|record| record.key.as_deref() == Some(key));
        Ok(records)
    }

    fn rest(&self) {
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Offset, Topic};
    use crate::authorize::record::TimestampType;
    use crate::authorize::standing::Status;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

    /// A partition in memory, into which others write just before each of our own records.
    struct Memory {
        records: RefCell<Vec<Record>>,
        others: RefCell<VecDeque<Vec<Registered>>>,
        codec: WorkflowCodec,
    }

    impl Memory {
        fn new(present: &[Registered], others: impl IntoIterator<Item = Vec<Registered>>) -> Self {
            let memory = Self {
                records: RefCell::default(),
                others: RefCell::new(others.into_iter().collect()),
                codec: WorkflowCodec::new().unwrap(),
            };
            for registered in present {
                memory.put(Some(&memory.codec.encode("wf", registered).unwrap()));
            }
            memory
        }

        fn put(&self, value: Option<&[u8]>) -> Coordinates {
            let mut records = self.records.borrow_mut();
            let source = Coordinates {
                topic: Topic::parse("workflows").unwrap(),
                partition: Partition(0),
                offset: Offset(i64::try_from(records.len()).unwrap()),
            };
            records.push(Record {
                source: source.clone(),
                timestamp: None,
                timestamp_type: TimestampType::NotAvailable,
                key: Some("wf".into()),
                value: value.map(|value| value.to_vec().into()),
                headers: Vec::new(),
            });
            source
        }

        fn change(&self, act: &Act, expected: Option<i64>) -> Result<Changed, ChangeError> {
            Changing { log: self, codec: &self.codec, id: "wf", act, expected, now: NOW }.run()
        }

        /// Status and version of what stands at last.
        fn last(&self) -> Option<(Status, i64)> {
            let records = self.records.borrow();
            let value = records.last()?.value.clone()?;
            let (_, registered) = self.codec.decode(b"wf", &value).unwrap();
            Some((registered.status, registered.version))
        }
    }

    impl Log for Memory {
        fn history(&self, _: &[u8]) -> Result<(Vec<Record>, Partition), TopicError> {
            Ok((self.records.borrow().clone(), Partition(0)))
        }

        fn append(&self, _: Partition, _: &[u8], value: Option<&[u8]>) -> Result<Coordinates, TopicError> {
            for other in self.others.borrow_mut().pop_front().unwrap_or_default() {
                self.put(Some(&self.codec.encode("wf", &other).unwrap()));
            }
            Ok(self.put(value))
        }

        fn between(
            &self,
            _: &[u8],
            after: Option<&Coordinates>,
            before: &Coordinates,
        ) -> Result<Vec<Record>, TopicError> {
            let is_between = |record: &&Record| {
                record.source.offset < before.offset
                    && after.is_none_or(|after| record.source.offset > after.offset)
            };
            Ok(self.records.borrow().iter().filter(is_between).cloned().collect())
        }

        fn rest(&self) {
            // The next of those who mend what they wrote.
            let mended = self.others.borrow_mut().pop_front().unwrap_or_default();
            for registered in mended {
                self.put(Some(&self.codec.encode("wf", &registered).unwrap()));
            }
        }
    }

    fn at(status: Status, version: i64) -> Registered {
        Registered {
            kind: "invoice".into(),
            status,
            step: "read".into(),
            owner: "o".into(),
            allowed_steps: None,
            version,
            updated_at: NOW,
        }
    }

    fn step() -> Act {
        Act::Step { step: "pay".to_owned(), allowed: None }
    }

    #[test]
    fn a_change_alone_is_one_record() {
        let memory = Memory::new(&[at(Status::Running, 1)], []);
        let changed = memory.change(&step(), Some(1)).unwrap();
        assert_eq!((changed.registered.version, changed.at.offset, changed.met), (2, Offset(1), 0));
        assert_eq!(memory.records.borrow().len(), 2);
    }

    #[test]
    fn a_change_that_overwrote_another_is_made_again_on_top_of_it() {
        let memory = Memory::new(&[at(Status::Running, 1)], [vec![at(Status::Running, 2)]]);
        let changed = memory.change(&step(), None).unwrap();
        assert_eq!((changed.registered.version, changed.met), (3, 1));
        assert_eq!(memory.last(), Some((Status::Running, 3)));
    }

    #[test]
    fn an_end_outlives_a_step_that_was_written_over_it() {
        let memory = Memory::new(&[at(Status::Running, 1)], [vec![at(Status::Cancelled, 2)]]);
        let Err(ChangeError::Refused(refusal)) = memory.change(&step(), None) else { panic!("refused") };
        assert_eq!(refusal.to_string(), "the workflow `wf` has ended: cancelled");
        assert_eq!(memory.last(), Some((Status::Cancelled, 3)), "written again, above both");
    }

    #[test]
    fn an_expected_version_is_expected_of_what_others_wrote_meanwhile_too() {
        let memory = Memory::new(&[at(Status::Running, 1)], [vec![at(Status::Running, 2)]]);
        let refused = memory.change(&Act::Suspend, Some(1));
        assert!(matches!(refused, Err(ChangeError::Refused(Refusal::Version { version: 2, .. }))));
        assert_eq!(memory.last(), Some((Status::Running, 3)));
    }

    #[test]
    fn of_two_starts_the_first_stands() {
        let start = Act::Start {
            kind: "other".to_owned(),
            owner: "p".to_owned(),
            step: "x".to_owned(),
            allowed: None,
        };
        let memory = Memory::new(&[], [vec![at(Status::Running, 1)]]);
        let Err(ChangeError::Refused(refusal)) = memory.change(&start, None) else { panic!("refused") };
        assert_eq!(refusal, Refusal::Known("wf".to_owned(), "running"));
        let value = memory.records.borrow().last().unwrap().value.clone().unwrap();
        let (_, stands) = memory.codec.decode(b"wf", &value).unwrap();
        assert_eq!((&*stands.kind, stands.version), ("invoice", 2));
    }

    #[test]
    fn others_that_never_rest_are_an_error() {
        let others = (1..40).map(|n| vec![at(Status::Running, 2 * n)]);
        let memory = Memory::new(&[at(Status::Running, 1)], others);
        assert!(matches!(memory.change(&step(), None), Err(ChangeError::Busy(_))));
    }

    #[test]
    fn an_end_outlives_two_who_had_not_seen_it() {
        // Ended, and overwritten by a second one before this one's record came.
        let unseen = vec![at(Status::Failed, 2), at(Status::Running, 2)];
        let memory = Memory::new(&[at(Status::Running, 1)], [unseen]);
        assert!(matches!(memory.change(&step(), None), Err(ChangeError::Refused(Refusal::Ended(..)))));
        assert_eq!(memory.last(), Some((Status::Failed, 3)));
        // And once more by the second one while this one wrote the end again.
        let unseen = [vec![at(Status::Failed, 2)], vec![at(Status::Running, 2)]];
        let memory = Memory::new(&[at(Status::Running, 1)], unseen);
        assert!(memory.change(&step(), None).is_err());
        assert_eq!(memory.last(), Some((Status::Failed, 3)));
    }

    #[test]
    fn one_who_comes_while_another_mends_waits_for_it() {
        let half = [at(Status::Running, 1), at(Status::Failed, 2), at(Status::Running, 2)];
        let memory = Memory::new(&half, [vec![at(Status::Failed, 3)]]);
        assert!(matches!(memory.change(&step(), None), Err(ChangeError::Refused(Refusal::Ended(..)))));
        assert_eq!(memory.last(), Some((Status::Failed, 3)), "and writes nothing");
        // Nobody mends it: then it counts, as it does for a gate.
        let memory = Memory::new(&half, []);
        assert_eq!(memory.change(&step(), None).unwrap().registered.version, 3);
    }
}
