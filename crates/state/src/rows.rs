//! One table: rows in key order, shared between copies of the state until one of them writes.
//!
//! A node copies its state for every snapshot and every subscriber while commands keep coming, so neither the copy
//! nor the first write after it may cost as much as the table is large. Rows live in sorted blocks of at most
//! [`BLOCK_LEN_MAX`]; a copy shares all blocks, a write duplicates the one it touches.
//!
//! Invariant: no block is empty, and keys ascend within and across blocks. How rows are cut into blocks depends on
//! history and shows nowhere: not in equality, iteration or serialised bytes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Rows per block: a write after a copy duplicates this many rows at most (a few microseconds), and the list of
/// blocks of a table of 100,000 rows stays under 2,000 pointers.
const BLOCK_LEN_MAX: usize = 128;
/// Rows for which a full block gets room at a time. Twice the room, as a list takes, would be empty by half in a table whose
/// keys come in any order.
const ROOM: usize = 16;

type Block<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map whose copies are cheap.
pub(crate) struct Rows<K, V> {
    blocks: Arc<Vec<Block<K, V>>>,
    len: usize,
}

impl<K, V> Rows<K, V> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All rows in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.blocks
            .iter()
            .flat_map(|block| block.iter())
            .map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> Rows<K, V> {
    /// The row of a key.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (block, at) = self.find(key)?;
        Some(&self.blocks.get(block)?.get(at)?.1)
    }

    /// The key of a row, as the table has it.
    pub(crate) fn key_of(&self, key: &K) -> Option<&K> {
        let (block, at) = self.find(key)?;
        Some(&self.blocks.get(block)?.get(at)?.0)
    }

    /// Whether the key has a row.
    pub(crate) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_some()
    }

    /// The rows whose keys compare as equal, in key order. The comparison must not contradict the order of keys:
    /// it is a range of them that one cannot name by its ends, such as all pairs with a given first half.
    pub(crate) fn range(&self, compare: impl Fn(&K) -> Ordering) -> impl Iterator<Item = (&K, &V)> {
        let is_before = |key: &K| compare(key) == Ordering::Less;
        let first = self
            .blocks
            .partition_point(|block| block.last().is_some_and(|(last, _)| is_before(last)));
        let skip = self
            .blocks
            .get(first)
            .map_or(0, |block| block.partition_point(|(key, _)| is_before(key)));
        let rows = self
            .blocks
            .get(first..)
            .unwrap_or_default()
            .iter()
            .flat_map(|block| block.iter())
            .skip(skip);
        rows.map(|(key, value)| (key, value))
            .take_while(move |(key, _)| compare(key) == Ordering::Equal)
    }

    /// Number of the first block whose last key is not below `key`.
    fn block_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.blocks
            .partition_point(|block| block.last().is_some_and(|(last, _)| last.borrow() < key))
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let block = self.block_of(key);
        let at = self
            .blocks
            .get(block)?
            .binary_search_by(|(row, _)| row.borrow().cmp(key))
            .ok()?;
        Some((block, at))
    }
}

impl<K: Ord + Clone, V: Clone> Rows<K, V> {
    /// Writes a row; gives back the one that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        // A key beyond the last row goes to the end of the last block.
        let at_block = self.block_of(&key).min(self.blocks.len().saturating_sub(1));
        let blocks = Arc::make_mut(&mut self.blocks);
        let Some(shared) = blocks.get_mut(at_block) else {
            blocks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let place = shared.binary_search_by(|(row, _)| row.cmp(&key));
        if place.is_err() && Arc::get_mut(shared).is_none() {
            // A copy without room would be moved at once for the new row.
            let mut copy = Vec::with_capacity(shared.len() + ROOM);
            copy.extend(shared.iter().cloned());
            *shared = Arc::new(copy);
        }
        let block = Arc::make_mut(shared);
        match place {
            Ok(at) => block.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                if block.len() == block.capacity() {
                    block.reserve_exact(ROOM);
                }
                block.insert(at, (key, value));
                self.len += 1;
                if block.len() > BLOCK_LEN_MAX {
                    // Keys mostly ascend; a full last block stays full so that such a table is dense.
                    let keep = if at == BLOCK_LEN_MAX {
                        BLOCK_LEN_MAX
                    } else {
                        BLOCK_LEN_MAX / 2
                    };
                    let tail = block.split_off(keep);
                    block.shrink_to((keep + ROOM).min(BLOCK_LEN_MAX));
                    blocks.insert(at_block + 1, Arc::new(tail));
                }
                None
            }
        }
    }

    /// Removes a row; gives it back.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at_block, at) = self.find(key)?;
        let blocks = Arc::make_mut(&mut self.blocks);
        let block = Arc::make_mut(blocks.get_mut(at_block)?);
        let (_, value) = block.remove(at);
        let len = block.len();
        self.len -= 1;
        if len == 0 {
            blocks.remove(at_block);
        } else if len < BLOCK_LEN_MAX / 4 {
            Self::join(blocks, at_block, len);
        }
        Some(value)
    }

    /// The row of a key, to be changed.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (block, at) = self.find(key)?;
        let block = Arc::make_mut(&mut self.blocks).get_mut(block)?;
        Arc::make_mut(block).get_mut(at).map(|(_, value)| value)
    }

    /// Appends the block after a small one to it when both fit into half a block, so that a table that shrank
    /// does not keep many tiny blocks.
    fn join(blocks: &mut Vec<Block<K, V>>, at: usize, len: usize) {
        let next_len = blocks.get(at + 1).map_or(usize::MAX, |next| next.len());
        if next_len > BLOCK_LEN_MAX / 2 - len {
            return;
        }
        let next = blocks.remove(at + 1);
        if let Some(block) = blocks.get_mut(at) {
            Arc::make_mut(block).extend(next.iter().cloned());
        }
    }
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self {
            blocks: Arc::default(),
            len: 0,
        }
    }
}

impl<K, V> Clone for Rows<K, V> {
    fn clone(&self) -> Self {
        Self {
            blocks: Arc::clone(&self.blocks),
            len: self.len,
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Rows<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Rows<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Rows<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Rows<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(RowsInOrder {
            rows: self.iter(),
            len: self.len,
        })
    }
}

/// Tells the serializer the length up front, which a plain flattened iterator cannot.
struct RowsInOrder<I> {
    rows: I,
    len: usize,
}

impl<I: Iterator> Iterator for RowsInOrder<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        self.len -= 1;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<'de, K, V> Deserialize<'de> for Rows<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowsVisitor(PhantomData))
    }
}

struct RowsVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for RowsVisitor<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    type Value = Rows<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows in ascending order of their keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rows = Rows::default();
        let mut last: Option<K> = None;
        while let Some((key, value)) = map.next_entry::<K, V>()? {
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(A::Error::custom(
                    "rows of a table are not in ascending order of their keys",
                ));
            }
            last = Some(key.clone());
            rows.insert(key, value);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn blocks_are_sound(rows: &Rows<u16, u32>) -> bool {
        rows.blocks
            .iter()
            .all(|block| !block.is_empty() && block.len() <= BLOCK_LEN_MAX)
    }

    fn encode(rows: &Rows<u16, u32>) -> Vec<u8> {
        bincode::serde::encode_to_vec(rows, bincode::config::standard()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec((0..600_u16, any::<u32>(), 0..5_u8), 0..1500)) {
            let mut rows = Rows::default();
            let mut model = BTreeMap::new();
            for (key, value, what) in steps {
                match what {
                    0 => prop_assert_eq!(rows.remove(&key), model.remove(&key)),
                    1 => if let Some(found) = rows.get_mut(&key) {
                        *found = value;
                        model.insert(key, value);
                    } else {
                        prop_assert!(!model.contains_key(&key));
                    },
                    _ => prop_assert_eq!(rows.insert(key, value), model.insert(key, value)),
                }
                prop_assert_eq!(rows.get(&key), model.get(&key));
            }
            prop_assert!(blocks_are_sound(&rows));
            prop_assert_eq!(rows.len(), model.len());
            prop_assert!(rows.iter().eq(model.iter()));
            for tens in [0, 7, 59, 70] {
                let found = rows.range(|key| (key / 10).cmp(&tens));
                prop_assert!(found.eq(model.range(tens * 10..tens * 10 + 10)));
            }
            // Rows written in another order are equal and give the same bytes.
            let mut again = Rows::default();
            for (key, value) in &model {
                again.insert(*key, *value);
            }
            prop_assert_eq!(&rows, &again);
            prop_assert_eq!(encode(&rows), encode(&again));
            let (read, _): (Rows<u16, u32>, usize) =
                bincode::serde::decode_from_slice(&encode(&rows), bincode::config::standard()).unwrap();
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn emptied_table_keeps_no_block() {
        let mut rows = Rows::default();
        for key in 0..1000_u16 {
            rows.insert(key, 0);
        }
        for key in 0..1000_u16 {
            rows.remove(&key);
        }
        assert_eq!((rows.len(), rows.blocks.len()), (0, 0));
    }

    #[test]
    fn write_to_a_copy_leaves_the_original_and_shares_the_other_blocks() {
        let mut rows = Rows::default();
        for key in 0..1000_u16 {
            rows.insert(key, 1);
        }
        let copy = rows.clone();
        rows.insert(500, 2);
        assert_eq!((copy.get(&500), rows.get(&500)), (Some(&1), Some(&2)));
        let shared = rows
            .blocks
            .iter()
            .zip(copy.blocks.iter())
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert_eq!(shared, rows.blocks.len() - 1);
    }

    #[test]
    fn a_write_to_a_shared_block_or_to_half_of_a_split_one_has_room_for_more() {
        let room = |rows: &Rows<u16, u32>| -> Vec<_> {
            let rooms = rows.blocks.iter().map(|block| block.capacity() - block.len());
            rooms.collect()
        };
        let mut rows = Rows::default();
        for key in 0..100 {
            rows.insert(key * 2, 0);
        }
        let copy = rows.clone();
        rows.insert(1, 0);
        assert_eq!(room(&rows), [ROOM - 1]);
        assert_eq!((copy.len(), rows.len()), (100, 101));
        for key in 1..29 {
            rows.insert(key * 2 + 1, 0);
        }
        assert_eq!(rows.blocks.len(), 2, "it was full");
        assert_eq!(room(&rows)[0], ROOM);
    }

    #[test]
    fn rows_out_of_order_are_not_read() {
        let bytes =
            bincode::serde::encode_to_vec(vec![(2_u16, 0_u32), (1, 0)], bincode::config::standard()).unwrap();
        let read: Result<(Rows<u16, u32>, usize), _> =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard());
        assert!(read.is_err());
    }
}
