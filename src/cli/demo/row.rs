//! One line of the story: what happens, how it must end, and how it has ended. Limits: it compares; what happened was
//! found elsewhere.

use crate::authorize::decision::Reason;

/// How something ends; `R` is the reason's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending<R> {
    /// A record was forwarded, and its countersignature holds.
    Forwarded,
    /// A record was denied.
    Denied(R),
    /// A record waits for a person.
    Held,
    /// An answer changed nothing, with the effect that the audit names.
    Ignored(R),
    /// A job has done all of its steps.
    Done,
    /// A gate has not given a job leave for its next step.
    Refused {
        /// How many steps were done before.
        after: usize,
        /// Why.
        because: R,
    },
    /// A job was told to stop.
    Stopped {
        /// How many steps were done before.
        after: usize,
        /// Why.
        because: R,
    },
}

/// What is told of a situation before it happens.
pub(super) type Told = Ending<&'static str>;

/// The code of a denial, as it is told.
pub(super) fn denied(reason: Reason) -> Told {
    Ending::Denied(reason.as_str())
}

/// A situation and how it ended.
pub(super) struct Row {
    /// Its number, from 1.
    pub(super) number: u64,
    /// What happens.
    pub(super) title: &'static str,
    /// How it must end.
    pub(super) told: Told,
    /// How it has ended.
    pub(super) found: Ending<String>,
    /// What a permit or a hold rests on.
    pub(super) policies: Vec<String>,
    /// What else is to be said, in the words of gates, watches and challenges.
    pub(super) notes: Vec<String>,
}

impl Row {
    /// A row of nothing but its ending; its number is the stage's to give.
    pub(super) fn of(title: &'static str, told: Told, found: Ending<String>) -> Self {
        Self { number: 0, title, told, found, policies: Vec::new(), notes: Vec::new() }
    }

    /// Whether it ended as told.
    pub(super) fn is_as_told(&self) -> bool {
        self.told == self.found.as_ref()
    }
}

impl Ending<String> {
    fn as_ref(&self) -> Ending<&str> {
        match self {
            Self::Forwarded => Ending::Forwarded,
            Self::Denied(reason) => Ending::Denied(reason),
            Self::Held => Ending::Held,
            Self::Ignored(effect) => Ending::Ignored(effect),
            Self::Done => Ending::Done,
            Self::Refused { after, because } => Ending::Refused { after: *after, because },
            Self::Stopped { after, because } => Ending::Stopped { after: *after, because },
        }
    }
}

impl<R: AsRef<str>> Ending<R> {
    /// In one word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Denied(_) => "denied",
            Self::Held => "held",
            Self::Ignored(_) => "ignored",
            Self::Done => "done",
            Self::Refused { .. } => "refused",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// Why, where the ending itself says it.
    pub(super) fn because(&self) -> Option<&str> {
        match self {
            Self::Denied(reason) | Self::Ignored(reason) => Some(reason.as_ref()),
            Self::Refused { because, .. } | Self::Stopped { because, .. } => Some(because.as_ref()),
            Self::Forwarded | Self::Held | Self::Done => None,
        }
    }

    /// After how many steps, of a job that did not do all of them.
    pub(super) fn after(&self) -> Option<usize> {
        match self {
            Self::Refused { after, .. } | Self::Stopped { after, .. } => Some(*after),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_told_only_if_ending_reason_and_step_are() {
        let row = |told, found| Row::of("", told, found);
        let revoked = |after| Ending::Stopped { after, because: "revoked".to_owned() };
        let told = Ending::Stopped { after: 4, because: "revoked" };
        assert!(row(told, revoked(4)).is_as_told());
        for other in [
            revoked(5),
            Ending::Stopped { after: 4, because: "silence".to_owned() },
            Ending::Refused { after: 4, because: "revoked".to_owned() },
            Ending::Done,
        ] {
            assert!(!row(told, other).is_as_told());
        }
        assert!(!row(denied(Reason::Forbidden), Ending::Denied("not_permitted".to_owned())).is_as_told());
        assert!(!row(Ending::Forwarded, Ending::Held).is_as_told());
    }
}
