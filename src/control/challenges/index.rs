//! The challenges as they stand, in memory: those that wait for an answer whole, those that have ended by a bounded
//! number. Each is kept as it stands in Kafka and decoded when somebody looks. Limits: it is a view for people; what an
//! answer does is decided by the lane, whatever stands here.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::authorize::step_up::{Challenge, Status};

/// Ended challenges that are kept. All of them stay readable in the topic.
const MAX_ENDED: usize = 10_000;

/// A place in the list: challenges are listed by when they were asked, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it was asked, in milliseconds.
    pub asked_at: i64,
    /// Its id.
    pub id: Arc<str>,
}

/// A challenge as it is kept.
#[derive(Debug, Clone)]
struct Kept {
    place: Place,
    status: Status,
    changed_at: i64,
    route: Arc<str>,
    value: Arc<[u8]>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Index {
    kept: HashMap<Arc<str>, Kept>,
    /// Those that have not ended, in the order of the list.
    waiting: BTreeSet<Place>,
    /// Those that have, in the same order.
    ended: BTreeSet<Place>,
    /// The ended ones by when they ended: the oldest leaves first.
    leaving: BTreeSet<(i64, Arc<str>)>,
    routes: BTreeSet<Arc<str>>,
}

/// What a listing asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Challenges of this status alone; `None` is every one.
    pub status: Option<Status>,
    /// Challenges of this route alone.
    pub route: Option<String>,
    /// What follows this place alone.
    pub after: Option<Place>,
}

/// What a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The challenges, in the order of the list.
    pub found: Vec<T>,
    /// Where the next listing begins; `None` where this was the end.
    pub next: Option<Place>,
    /// How many challenges were looked at.
    pub looked: usize,
}

/// Whether nothing more will become of it. An approved one is decided again.
fn has_ended(status: Status) -> bool {
    !matches!(status, Status::Open | Status::Approved)
}

impl Index {
    /// Takes in the newest state of a challenge; `value` is what it was read from.
    pub fn put(&mut self, challenge: &Challenge, value: &[u8]) {
        self.remove(&challenge.id);
        let id: Arc<str> = challenge.id.as_str().into();
        let route = match self.routes.get(challenge.route.as_str()) {
            Some(known) => Arc::clone(known),
            None => {
                let route: Arc<str> = challenge.route.as_str().into();
                self.routes.insert(Arc::clone(&route));
                route
            }
        };
        let place = Place { asked_at: challenge.asked_at, id: Arc::clone(&id) };
        if has_ended(challenge.status) {
            self.ended.insert(place.clone());
            self.leaving.insert((challenge.changed_at, Arc::clone(&id)));
        } else {
            self.waiting.insert(place.clone());
        }
        let kept = Kept {
            place,
            status: challenge.status,
            changed_at: challenge.changed_at,
            route,
            value: value.into(),
        };
        self.kept.insert(id, kept);
        while self.ended.len() > MAX_ENDED
            && let Some((_, oldest)) = self.leaving.first().cloned()
        {
            self.remove(&oldest);
        }
    }

    /// Forgets a challenge.
    pub fn remove(&mut self, id: &str) {
        if let Some(old) = self.kept.remove(id) {
            self.waiting.remove(&old.place);
            self.ended.remove(&old.place);
            self.leaving.remove(&(old.changed_at, old.place.id));
        }
    }

    /// The bytes of one challenge.
    pub fn get(&self, id: &str) -> Option<Arc<[u8]>> {
        self.kept.get(id).map(|kept| Arc::clone(&kept.value))
    }

    /// At most `limit` challenges that a query asks for, out of at most `most` that are looked at.
    pub fn list(&self, query: &Query, limit: usize, most: usize) -> Page<Arc<[u8]>> {
        let mut from = query.after.clone();
        let (mut found, mut looked) = (Vec::new(), 0);
        while looked < most {
            let Some(place) = self.next(query.status, from.as_ref()) else {
                return Page { found, next: None, looked };
            };
            looked += 1;
            from = Some(place.clone());
            let Some(kept) = self.kept.get(&place.id) else { continue };
            let of_route = query.route.as_deref().is_none_or(|route| route == &*kept.route);
            if of_route && query.status.is_none_or(|status| status == kept.status) {
                found.push(Arc::clone(&kept.value));
                if found.len() == limit {
                    break;
                }
            }
        }
        let next = from.filter(|from| self.next(query.status, Some(from)).is_some());
        Page { found, next, looked }
    }

    /// The first place past `from` among those that a status can be found at.
    fn next(&self, status: Option<Status>, from: Option<&Place>) -> Option<&Place> {
        let bound = from.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.waiting.range::<Place, _>((bound, Bound::Unbounded)).next();
        let ended = self.ended.range::<Place, _>((bound, Bound::Unbounded)).next();
        match status.map(has_ended) {
            Some(false) => waiting,
            Some(true) => ended,
            None => waiting.into_iter().chain(ended).min(),
        }
    }

    /// How many challenges are kept: those that wait, and those that have ended.
    pub fn len(&self) -> (usize, usize) {
        (self.waiting.len(), self.ended.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::challenges::tests::challenge;

    fn put(index: &mut Index, number: u32, status: Status, changed_at: i64) -> String {
        let challenge = challenge(number, status, changed_at);
        index.put(&challenge, challenge.id.as_bytes());
        challenge.id
    }

    fn listed(index: &Index, query: &Query, limit: usize) -> (Vec<String>, Option<Place>) {
        let Page { found, next, .. } = index.list(query, limit, 1000);
        (found.iter().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect(), next)
    }

    fn of(status: Option<Status>) -> Query {
        Query { status, ..Query::default() }
    }

    #[test]
    fn the_newest_state_replaces_the_older() {
        let mut index = Index::default();
        let id = put(&mut index, 1, Status::Open, 1);
        assert_eq!(index.len(), (1, 0));
        put(&mut index, 1, Status::Approved, 2);
        assert_eq!(index.len(), (1, 0));
        put(&mut index, 1, Status::Released, 3);
        assert_eq!(index.len(), (0, 1));
        assert!(index.get(&id).is_some());
        assert_eq!(listed(&index, &of(Some(Status::Open)), 10), (vec![], None));
        assert_eq!(listed(&index, &of(None), 10).0, std::slice::from_ref(&id));
        index.remove(&id);
        assert_eq!((index.len(), index.get(&id)), ((0, 0), None));
    }

    #[test]
    fn pages_join_to_the_whole_list_in_its_order() {
        let mut index = Index::default();
        let ids: Vec<String> = (0..25)
            .map(|n| {
                let status = if n % 3 == 0 { Status::Expired } else { Status::Open };
                put(&mut index, n, status, 100 + i64::from(n))
            })
            .collect();
        for (status, expected) in [
            (None, ids.clone()),
            (Some(Status::Open), (0..25).filter(|n| n % 3 != 0).map(|n| ids[n].clone()).collect()),
            (Some(Status::Expired), (0..25).filter(|n| n % 3 == 0).map(|n| ids[n].clone()).collect()),
            (Some(Status::Refused), vec![]),
        ] {
            for limit in [1, 4, 25, 30] {
                let (mut query, mut got) = (of(status), Vec::new());
                loop {
                    let (page, next) = listed(&index, &query, limit);
                    got.extend(page);
                    match next {
                        Some(next) => query.after = Some(next),
                        None => break,
                    }
                }
                assert_eq!(got, expected, "{status:?} by {limit}");
            }
        }
        let query = Query { route: Some("none".into()), ..Query::default() };
        let page = index.list(&query, 5, 10);
        assert_eq!((page.found.len(), page.looked), (0, 10));
        assert!(page.next.is_some(), "a look is bounded, and the next goes on");
    }

    #[test]
    fn only_ended_ones_are_bounded_and_the_oldest_leaves() {
        let mut index = Index::default();
        let first = put(&mut index, 0, Status::Refused, 5);
        let open = put(&mut index, 1, Status::Open, 1);
        for n in 2..2 + u32::try_from(MAX_ENDED).unwrap() {
            put(&mut index, n, Status::Released, 10 + i64::from(n));
        }
        assert_eq!(index.len(), (1, MAX_ENDED));
        assert_eq!(index.get(&first), None);
        assert!(index.get(&open).is_some());
    }
}
