//! What one has by the ten thousand and most of them never use: a word until it is first changed, then a piece of memory of its
//! own. Read before that, it looks as if it were blank.
//!
//! Invariant: what was only read takes no memory. Whoever calls what may change it, and changes nothing, asks for some; so
//! such calls on what many have, and nobody uses, are guarded by a look.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

/// What has a blank form that all can share.
pub trait Blank: Default + 'static {
    /// That form.
    const BLANK: &'static Self;
}

/// Something that most never use.
#[derive(Debug, Clone, Default)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Rare<T> {
    /// A blank one; takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Whether nobody has changed it.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: Blank + PartialEq> Rare<T> {
    /// This; takes no memory if it is what a blank one looks like.
    #[must_use]
    pub fn of(value: T) -> Self {
        Self((value != *T::BLANK).then(|| Box::new(value)))
    }
}

impl<T: Blank + PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Blank + Eq> Eq for Rare<T> {}

impl<T: Default> Rare<T> {
    /// Takes it out, and leaves a blank one.
    #[must_use]
    pub fn take_out(&mut self) -> T {
        self.0.take().map_or_else(T::default, |used| *used)
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: 'static> Blank for VecDeque<T> {
    const BLANK: &'static Self = &Self::new();
}

impl<T: 'static> Blank for Vec<T> {
    const BLANK: &'static Self = &Self::new();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_blank_until_it_is_changed_and_once_it_is_taken() {
        let mut rare = Rare::<Vec<u8>>::new();
        assert!(rare.is_empty() && rare.is_unused());
        rare.push(7);
        assert!(*rare == [7] && !rare.is_unused());
        assert_eq!(rare.take_out(), [7]);
        assert!(rare.is_empty() && rare.is_unused());
        assert!(rare.take_out().is_empty());
    }

    #[test]
    fn what_looks_blank_is_the_same_whether_it_takes_memory_or_not() {
        let mut emptied = Rare::of(vec![7]);
        assert!(!emptied.is_unused() && emptied != Rare::new());
        emptied.pop();
        assert!(Rare::<Vec<u8>>::of(Vec::new()).is_unused());
        assert_eq!(emptied, Rare::new());
    }
}
