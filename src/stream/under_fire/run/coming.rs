//! What comes while the gates work: records of every kind, some with a grant, and answers to what was asked, by a broker's
//! clock that is behind or ahead. Limits: chance says what and when.

use std::time::Duration;

use crate::authorize::ids::UnixMillis;
use crate::authorize::record::{Record, TimestampType};
use crate::stream::clock::Clock as _;
use crate::stream::under_fire::people::{self, Answered, Ask, KEYS, Sent};
use crate::stream::under_fire::world::{ANSWERS, CHALLENGES, SOURCE, part};

use super::Site;

const MOST_RECORDS: usize = 11;
const MOST_ANSWERS: usize = 10;

impl Site {
    /// Appends a record to a partition of the source.
    fn send(&self, partition: usize, sent: Sent) {
        self.cluster.put(&part(SOURCE, i32::try_from(partition).unwrap()), &sent.record);
        self.sent.borrow_mut()[partition].push(sent);
    }

    pub(super) fn send_any(&self) {
        let partition = self.index(self.sent.borrow().len());
        let count: usize = self.sent.borrow().iter().map(Vec::len).sum();
        if count >= MOST_RECORDS {
            return;
        }
        let sent = people::pick(|below| self.draw(below)).clone();
        self.send(partition, sent);
    }

    /// Sends a record that brings an approval which somebody gave, for what that was asked about or for something else.
    pub(super) fn send_with_grant(&self) {
        let tokens = self.tokens.borrow().len();
        if tokens == 0 {
            return;
        }
        let index = self.index(tokens);
        let token = self.tokens.borrow()[index].clone();
        let key = KEYS[self.index(2)];
        let ask = if token.challenge.resource.id == "large" { Ask::Large } else { Ask::Huge };
        let count = self.sent.borrow().iter().flatten().filter(|sent| sent.grant.is_some()).count();
        if count >= 2 {
            return;
        }
        let partition = if self.draw(4) == 0 {
            self.index(self.sent.borrow().len())
        } else {
            usize::try_from(token.challenge.partition).unwrap()
        };
        self.send(partition, people::with_grant(ask, key, format!("granted-{count}"), (index, &token.text)));
    }

    /// The challenges that were told since, as whoever answers sees them.
    fn look_at_challenges(&self) {
        let (known, from) = &mut *self.challenges.borrow_mut();
        let (records, next) = self.cluster.read_on(&part(CHALLENGES, 0), *from);
        *from = next;
        let codec = &self.common.codecs.challenge;
        for challenge in records.iter().map(|record| codec.decode(record.value.as_deref().unwrap()).unwrap())
        {
            if known.iter().all(|other| other.id != challenge.id) {
                known.push(challenge);
            }
        }
    }

    /// Time passes to about the end of something that was asked: what is answered then comes late, or just not.
    pub(super) fn wait_for_an_end(&self) {
        self.look_at_challenges();
        let known = self.challenges.borrow().0.len();
        if known == 0 {
            return;
        }
        let until = self.challenges.borrow().0[self.index(known)].hold_until;
        let left = until - self.clock.now().0 - 5_000;
        if let Ok(left) = u64::try_from(left) {
            self.clock.sleep(Duration::from_millis(left + self.draw(40_000)));
        }
    }

    /// Somebody answers: something that was asked, mostly, and mostly yes.
    pub(super) fn answer(&self) {
        self.look_at_challenges();
        let count: usize = self.answers.borrow().iter().map(Vec::len).sum();
        if count >= MOST_ANSWERS {
            return;
        }
        let known = self.challenges.borrow().0.len();
        let tokens = self.tokens.borrow().len();
        let (partition, index) = match self.draw(12) {
            0 => (self.index(self.answers.borrow().len()), None),
            1 if tokens > 0 => {
                // Once more, and here or elsewhere.
                let index = self.index(tokens);
                let of = usize::try_from(self.tokens.borrow()[index].challenge.partition).unwrap();
                let elsewhere = self.draw(5) == 0;
                (if elsewhere { (of + 1) % self.answers.borrow().len() } else { of }, Some(index))
            }
            _ if known > 0 => {
                let challenge = self.challenges.borrow().0[known - 1 - self.index(known.min(4))].clone();
                let who = ["carol", "dave", "erin", "carol", "dave", "alice", "mallory"][self.index(7)];
                let said = (who, self.draw(5) > 0, self.draw(12) > 0);
                let token = people::say(said, &challenge, format!("g-{tokens}"), self.clock.now());
                self.tokens.borrow_mut().push(token);
                // Some are not handed in here, and come with a record.
                if self.draw(6) == 0 {
                    return;
                }
                (usize::try_from(challenge.partition).unwrap(), Some(tokens))
            }
            _ => return,
        };
        // The broker's clock is behind the gate's as far as it may be, or ahead.
        let skew = [-30_000, -7_000, 0, 4_000][self.index(4)];
        let taken = UnixMillis(self.clock.now().0 + skew);
        let text =
            index.map_or_else(|| "nothing".to_owned(), |index| self.tokens.borrow()[index].text.clone());
        self.put_answer(partition, Answered { token: index, taken }, text);
    }

    /// Appends an answer.
    fn put_answer(&self, partition: usize, answered: Answered, text: String) {
        let of = part(ANSWERS, i32::try_from(partition).unwrap());
        let record = Record {
            source: people::pool()[0].record.source.clone(),
            timestamp: Some(answered.taken),
            timestamp_type: TimestampType::LogAppendTime,
            key: None,
            value: Some(text.into()),
            headers: Vec::new(),
        };
        self.cluster.put(&of, &record);
        self.answers.borrow_mut()[partition].push(answered);
    }
}
