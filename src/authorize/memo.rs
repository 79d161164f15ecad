//! Answers that were found before, by what they were found from: for what follows from its key alone and costs more than looking.
//! Limits: bounded by its number of slots, and each key has one; it changes how long an answer takes and never the answer.

use std::sync::{Mutex, MutexGuard};

/// Of each slot, the last key that fell into it with its answer.
pub(super) struct Memo<K, V> {
    slots: Vec<Mutex<Option<(K, V)>>>,
}

impl<K, V: Clone> Memo<K, V> {
    /// So many slots; at least one.
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: (0..slots.max(1)).map(|_| Mutex::new(None)).collect() }
    }

    /// The answer of the key that `is` recognises, kept or made now. `spread` chooses its slot, the same for the same key. What
    /// is made is kept only with a key. A slot in use by another lane is passed by, never waited for.
    ///
    /// # Errors
    /// Those of `make`; they are not kept.
    pub(super) fn get<E>(
        &self,
        spread: u64,
        is: impl FnOnce(&K) -> bool,
        make: impl FnOnce() -> Result<(Option<K>, V), E>,
    ) -> Result<V, E> {
        let mut slot = self.slot(spread);
        if let Some(Some((key, value))) = slot.as_deref()
            && is(key)
        {
            return Ok(value.clone());
        }
        let (key, value) = make()?;
        if let (Some(slot), Some(key)) = (slot.as_deref_mut(), key) {
            *slot = Some((key, value.clone()));
        }
        Ok(value)
    }

    fn slot(&self, spread: u64) -> Option<MutexGuard<'_, Option<(K, V)>>> {
        let index = usize::try_from(spread % self.slots.len() as u64).ok()?;
        self.slots.get(index)?.try_lock().ok()
    }
}

// By hand: what it holds is nobody's to read, and may be a part of a token.
impl<K, V> std::fmt::Debug for Memo<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn an_answer_is_made_once_until_another_key_takes_its_slot() {
        let memo = Memo::new(2);
        let ask = |key: u64| {
            let mut made = false;
            let make = || {
                made = true;
                Ok::<_, Infallible>((Some(key), key * 10))
            };
            let Ok(value) = memo.get(key, |kept| *kept == key, make);
            assert_eq!(value, key * 10);
            made
        };
        assert_eq!([1, 1, 2, 1, 3, 3, 1, 2].map(ask), [true, false, true, false, true, false, true, false]);
    }

    #[test]
    fn errors_and_what_has_no_key_are_not_kept_and_a_slot_in_use_is_passed_by() {
        let memo: Memo<u8, u8> = Memo::new(1);
        assert_eq!(memo.get(0, |_| true, || Err("no")), Err("no"));
        assert_eq!(memo.get(0, |_| true, || Ok::<_, ()>((None, 1))), Ok(1));
        assert_eq!(memo.get(0, |_| true, || Ok::<_, ()>((Some(1), 2))), Ok(2));
        let within = || memo.get(0, |_| true, || Ok::<_, ()>((Some(1), 3)));
        assert_eq!(memo.get(0, |_| false, || within().map(|value| (None, value))), Ok(3));
        assert_eq!(memo.get(0, |_| true, || Err("kept")), Ok(2));
    }
}
