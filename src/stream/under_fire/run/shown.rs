//! What a run shows: to the checker, and to a person who looks for what went wrong. Limits: nothing of the lanes' insides.

use std::fmt::Write as _;

use super::Site;
use crate::stream::log::TopicPartition;
use crate::stream::under_fire::seen::Seen;
use crate::stream::under_fire::world::{AUDIT, CHALLENGES, DENIED, REPLAY, TO};

impl Site {
    /// What can be seen of it from outside.
    pub(in crate::stream::under_fire) fn seen(&self, complete: bool) -> Seen {
        Seen {
            order: self.settings.order,
            sent: self.sent.borrow().clone(),
            answers: self.answers.borrow().clone(),
            tokens: self.tokens.borrow().clone(),
            commits: self.cluster.commits(),
            complete,
            unholdable: None,
        }
    }

    /// Whether readers of committed records see what was committed, and nothing else.
    ///
    /// # Errors
    /// What they see otherwise.
    pub(in crate::stream::under_fire) fn shows_what_was_committed(&self) -> Result<(), String> {
        let commits = self.cluster.commits();
        for of in self
            .cluster
            .partitions()
            .into_iter()
            .filter(|of| [TO, DENIED, AUDIT, CHALLENGES, REPLAY].contains(&of.topic.as_str()))
        {
            let records = commits.iter().flat_map(|commit| &commit.records);
            let mut committed: Vec<_> = records.filter(|record| TopicPartition::of(record) == of).collect();
            committed.sort_by_key(|record| record.source.offset);
            let seen = self.cluster.read(&of);
            if !seen.iter().eq(committed) {
                return Err(format!("readers of {of} do not see what was committed"));
            }
        }
        Ok(())
    }

    /// Every call and every byte that a reader sees.
    pub(in crate::stream::under_fire) fn transcript(&self) -> String {
        let mut text = self.settings.trace.borrow().clone().unwrap_or_default();
        for of in self.cluster.partitions() {
            for record in self.cluster.read(&of) {
                writeln!(text, "{of} {record:?}").unwrap();
            }
            writeln!(text, "{of} {:?}", self.cluster.position(&of)).unwrap();
        }
        text
    }
}
