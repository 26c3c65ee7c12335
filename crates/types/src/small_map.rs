//! Sorted maps and sets for what a scheduler has by the ten thousand, each with a few entries: one piece of memory as large
//! as they need, where a node of a tree keeps room for eleven and stays when the last has gone.
//!
//! Invariant: up to [`FEW_MAX`] entries are a sorted list; more are a tree, until a quarter of that is left.

use std::collections::{BTreeMap, btree_map};
use std::mem;
use std::slice;

/// Most entries of a list: moving half of them costs about what the way down a tree does.
const FEW_MAX: usize = 16;
/// Room that an empty list keeps, so that one that fills and empties again and again asks for no memory.
const KEPT_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Inner<K, V> {
    Few(Vec<(K, V)>),
    #[expect(
        clippy::box_collection,
        reason = "rare, and beside a list of three words it would make four"
    )]
    Many(Box<BTreeMap<K, V>>),
}

/// A sorted map that is small as a rule.
#[derive(Debug, Clone)]
pub struct SmallMap<K, V> {
    inner: Inner<K, V>,
}

impl<K, V> SmallMap<K, V> {
    /// An empty one; takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inner: Inner::Few(Vec::new()),
        }
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.inner {
            Inner::Few(list) => list.len(),
            Inner::Many(tree) => tree.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.inner {
            Inner::Few(list) => list.is_empty(),
            // A tree has some left.
            Inner::Many(_) => false,
        }
    }

    /// All entries, ascending.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.inner {
            Inner::Few(list) => Iter(Entries::Few(list.iter())),
            Inner::Many(tree) => Iter(Entries::Many(tree.iter())),
        }
    }

    /// The same, with values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let (few, many) = match &mut self.inner {
            Inner::Few(list) => (Some(list.iter_mut()), None),
            Inner::Many(tree) => (None, Some(tree.iter_mut())),
        };
        let few = few.into_iter().flatten().map(|(key, value)| (&*key, value));
        few.chain(many.into_iter().flatten())
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        match &self.inner {
            Inner::Few(list) => Some(&list.get(place(list, key).ok()?)?.1),
            Inner::Many(tree) => tree.get(key),
        }
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match &mut self.inner {
            Inner::Few(list) => {
                let at = place(list, key).ok()?;
                list.get_mut(at).map(|(_, value)| value)
            }
            Inner::Many(tree) => tree.get_mut(key),
        }
    }

    /// Whether the key has a value.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The lowest entry.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        match &self.inner {
            Inner::Few(list) => list.first().map(|(key, value)| (key, value)),
            Inner::Many(tree) => tree.first_key_value(),
        }
    }

    /// The highest entry.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        match &self.inner {
            Inner::Few(list) => list.last().map(|(key, value)| (key, value)),
            Inner::Many(tree) => tree.last_key_value(),
        }
    }

    /// Sets the value of a key; gives back the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.inner {
            Inner::Few(list) => match place(list, &key) {
                Ok(at) => list.get_mut(at).map(|(_, old)| mem::replace(old, value)),
                Err(at) if list.len() < FEW_MAX => {
                    if list.len() == list.capacity() {
                        // Not the four that a list begins with.
                        list.reserve_exact(list.len().max(1));
                    }
                    list.insert(at, (key, value));
                    None
                }
                Err(_) => {
                    let mut tree: BTreeMap<K, V> = mem::take(list).into_iter().collect();
                    tree.insert(key, value);
                    self.inner = Inner::Many(Box::new(tree));
                    None
                }
            },
            Inner::Many(tree) => tree.insert(key, value),
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = match &mut self.inner {
            Inner::Few(list) => {
                let at = place(list, key).ok()?;
                Some(list.remove(at).1)
            }
            Inner::Many(tree) => tree.remove(key),
        };
        self.shrink();
        removed
    }

    /// Takes an entry out if its value, which may be changed, is to go. One look-up.
    pub fn remove_if(&mut self, key: K, goes: impl FnOnce(&mut V) -> bool) -> Option<V> {
        let removed = match &mut self.inner {
            Inner::Few(list) => {
                let at = place(list, &key).ok()?;
                let goes = list.get_mut(at).is_some_and(|(_, value)| goes(value));
                goes.then(|| list.remove(at).1)
            }
            Inner::Many(tree) => match tree.entry(key) {
                btree_map::Entry::Occupied(mut entry) => goes(entry.get_mut()).then(|| entry.remove()),
                btree_map::Entry::Vacant(_) => None,
            },
        };
        self.shrink();
        removed
    }

    /// Takes the lowest entry out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let first = match &mut self.inner {
            Inner::Few(list) => (!list.is_empty()).then(|| list.remove(0)),
            Inner::Many(tree) => tree.pop_first(),
        };
        self.shrink();
        first
    }

    /// Keeps the wanted entries.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &mut V) -> bool) {
        match &mut self.inner {
            Inner::Few(list) => list.retain_mut(|(key, value)| wanted(key, value)),
            Inner::Many(tree) => tree.retain(wanted),
        }
        self.shrink();
    }

    /// Gives memory back that has become too much.
    fn shrink(&mut self) {
        match &mut self.inner {
            Inner::Few(list) => {
                if list.capacity() > KEPT_MAX && list.len() <= list.capacity() / 4 {
                    list.shrink_to(2 * list.len());
                }
            }
            Inner::Many(tree) => {
                if tree.len() <= FEW_MAX / 4 {
                    self.inner = Inner::Few(mem::take(&mut **tree).into_iter().collect());
                }
            }
        }
    }
}

/// Where a key is in a list, or belongs.
fn place<K: Ord, V>(list: &[(K, V)], key: &K) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.cmp(key))
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V> Extend<(K, V)> for SmallMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| {
            self.insert(key, value);
        });
    }
}

impl<'a, K, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// Entries of a [`SmallMap`].
#[derive(Debug, Clone)]
pub struct Iter<'a, K, V>(Entries<'a, K, V>);

#[derive(Debug, Clone)]
enum Entries<'a, K, V> {
    Few(slice::Iter<'a, (K, V)>),
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Entries::Few(list) => list.next().map(|(key, value)| (key, value)),
            Entries::Many(tree) => tree.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Entries::Few(list) => list.size_hint(),
            Entries::Many(tree) => tree.size_hint(),
        }
    }
}

/// A sorted set that is small as a rule.
#[derive(Debug, Clone)]
pub struct SmallSet<K> {
    keys: SmallMap<K, ()>,
}

impl<K> SmallSet<K> {
    /// An empty one; takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            keys: SmallMap::new(),
        }
    }

    /// How many it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.keys.iter().map(|(key, ())| key)
    }
}

impl<K: Ord> SmallSet<K> {
    /// Adds one; whether it is new.
    pub fn insert(&mut self, key: K) -> bool {
        self.keys.insert(key, ()).is_none()
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        self.keys.remove(key).is_some()
    }

    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.keys.contains_key(key)
    }

    /// The lowest.
    #[must_use]
    pub fn first(&self) -> Option<&K> {
        self.keys.first().map(|(key, ())| key)
    }

    /// The highest.
    #[must_use]
    pub fn last(&self) -> Option<&K> {
        self.keys.last().map(|(key, ())| key)
    }

    /// Takes the lowest out.
    pub fn pop_first(&mut self) -> Option<K> {
        self.keys.pop_first().map(|(key, ())| key)
    }
}

impl<K> Default for SmallSet<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> Extend<K> for SmallSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        self.keys.extend(keys.into_iter().map(|key| (key, ())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers in every run, in no order.
    fn numbers() -> impl Iterator<Item = u32> {
        (1_u32..).map(|n| n.wrapping_mul(2_654_435_761) >> 24)
    }

    #[test]
    fn behaves_like_a_tree_however_many_there_are() {
        let (mut small, mut tree) = (SmallMap::new(), BTreeMap::new());
        let mut numbers = numbers();
        for step in 0..6000_u32 {
            let (key, what) = (numbers.next().unwrap() % 40, numbers.next().unwrap());
            // It fills for a while, then empties.
            let removes = what % 256 < if step / 500 % 2 == 0 { 60 } else { 190 };
            match removes {
                true if what % 8 == 0 => assert_eq!(small.pop_first(), tree.pop_first()),
                true => assert_eq!(small.remove(&key), tree.remove(&key)),
                false => assert_eq!(small.insert(key, step), tree.insert(key, step)),
            }
            assert!(small.iter().eq(tree.iter()), "{step}");
            assert_eq!((small.len(), small.is_empty()), (tree.len(), tree.is_empty()));
            assert_eq!(small.get(&key), tree.get(&key));
            assert_eq!(
                (small.first(), small.last()),
                (tree.first_key_value(), tree.last_key_value())
            );
        }
    }

    #[test]
    fn many_are_a_tree_and_a_few_of_them_a_list_again() {
        let mut map = SmallMap::new();
        map.extend((0..=FEW_MAX).map(|key| (key, key)));
        assert!(matches!(map.inner, Inner::Many(_)));
        map.iter_mut().for_each(|(_, value)| *value += 1);
        map.retain(|key, value| *value == key + 1 && *key < 4);
        assert!(matches!(map.inner, Inner::Few(_)));
        assert!(map.values().eq(&[1, 2, 3, 4]));
    }

    fn capacity(map: &SmallMap<u8, u8>) -> usize {
        match &map.inner {
            Inner::Few(list) => list.capacity(),
            Inner::Many(_) => usize::MAX,
        }
    }

    #[test]
    fn an_empty_one_keeps_room_for_two_at_most() {
        let mut map = SmallMap::new();
        map.insert(1, 1);
        map.remove(&1);
        assert_eq!(capacity(&map), 1);
        map.extend((0..5).map(|key| (key, key)));
        map.retain(|_, _| false);
        assert_eq!(capacity(&map), 0);
    }

    #[test]
    fn a_few_of_a_long_list_keep_twice_their_room() {
        let mut map = SmallMap::new();
        map.extend((0..16).map(|key| (key, key)));
        map.retain(|key, _| *key < 5);
        assert_eq!(capacity(&map), 16);
        map.remove(&4);
        assert_eq!(capacity(&map), 8);
        map.pop_first();
        map.remove_if(1, |_| true);
        assert_eq!(capacity(&map), 4);
        assert!(map.values().eq(&[2, 3]));
    }

    #[test]
    fn a_set_has_each_key_once_in_order() {
        let mut set = SmallSet::new();
        assert!(set.is_empty() && set.pop_first().is_none());
        assert!(set.insert(5));
        assert!(!set.insert(5), "it is there");
        set.extend([9, 1, 5]);
        assert_eq!((set.len(), set.first(), set.last()), (3, Some(&1), Some(&9)));
        assert!(set.contains(&9) && set.remove(&9));
        assert!(!set.contains(&9) && !set.remove(&9));
        assert!(set.iter().eq(&[1, 5]));
        assert_eq!((set.pop_first(), set.pop_first()), (Some(1), Some(5)));
        assert!(set.is_empty());
    }

    #[test]
    fn a_value_is_removed_only_if_it_is_to_go() {
        for len in [3, 100] {
            let mut map = SmallMap::new();
            map.extend((0..len).map(|key| (key, 7)));
            let count_down = |value: &mut i32| {
                *value -= 6;
                *value < 0
            };
            assert_eq!(map.remove_if(2, count_down), None);
            assert_eq!(map.remove_if(2, count_down), Some(-5));
            assert_eq!(map.remove_if(2, count_down), None);
        }
    }
}
