//! How much is held in little room: clusters have tens of thousands of pods, most of which are like others.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// A few values in their order. Most sets have one, for which a tree would take the room of eleven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T: Ord> Few<T> {
    pub(super) fn insert(&mut self, value: T) {
        if let Err(place) = self.0.binary_search(&value) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, value);
        }
    }

    pub(super) fn remove(&mut self, value: &T) {
        if let Ok(place) = self.0.binary_search(value) {
            self.0.remove(place);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'f, T> IntoIterator for &'f Few<T> {
    type Item = &'f T;
    type IntoIter = std::slice::Iter<'f, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Values that are held once, however many have them, and as long as anybody does.
#[derive(Clone, Debug)]
pub(super) struct Pool<T>(HashMap<Arc<T>, usize>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The one that is equal to `value`, for one more holder.
    pub(super) fn take(&mut self, value: Arc<T>) -> Arc<T> {
        let entry = self.0.entry(value);
        let held = entry.key().clone();
        *entry.or_insert(0) += 1;
        held
    }

    /// One holder of it is gone.
    pub(super) fn give_back(&mut self, value: &T) {
        if let Some(holders) = self.0.get_mut(value) {
            *holders -= 1;
            if *holders == 0 {
                self.0.remove(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_held_in_order_and_once() {
        let mut few = Few::default();
        for value in [3, 1, 3, 2] {
            few.insert(value);
        }
        assert_eq!(few.into_iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        for value in [2, 4, 1, 3] {
            few.remove(&value);
        }
        assert!(few.is_empty());
    }

    #[test]
    fn equal_values_are_one_until_the_last_holder_is_gone() {
        let mut pool = Pool::default();
        let (first, second) = (pool.take(Arc::new("a".to_owned())), pool.take(Arc::new("a".to_owned())));
        assert!(Arc::ptr_eq(&first, &second));
        pool.give_back(&first);
        assert!(Arc::ptr_eq(&first, &pool.take(Arc::new("a".to_owned()))));
        pool.give_back(&first);
        pool.give_back(&first);
        assert!(pool.0.is_empty());
    }
}
