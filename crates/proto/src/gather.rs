//! Calls that carry what has gathered: what comes while calls are under way goes along with the next, and nothing waits for
//! company.
//!
//! - **Invariant:** what is taken for a call is never taken again.

use std::collections::VecDeque;

/// Something that a call carries, together with others.
pub trait Load {
    /// Parts of a message that it becomes.
    fn count(&self) -> usize {
        1
    }

    /// Their bytes.
    fn bytes(&self) -> usize;

    /// Whether nobody waits for its answer any more.
    fn is_unwanted(&self) -> bool;
}

/// Bounds of the calls of a [`Line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallBounds {
    /// Calls under way at a time.
    pub calls_max: usize,
    /// Parts of a call; what has more by itself goes alone.
    pub count_max: usize,
    /// Bytes of a call; what is longer by itself goes alone.
    pub bytes_max: usize,
}

/// What waits for calls to one peer, and how many calls are under way. As long as whoever fills it lets it.
#[derive(Debug)]
pub struct Line<T> {
    bounds: CallBounds,
    waiting: VecDeque<T>,
    calls: usize,
    /// How many may wait before those that nobody wants are looked for.
    purge_at: usize,
}

/// The least of them.
const PURGE_MIN: usize = 256;

impl<T: Load> Line<T> {
    /// Nothing waits.
    #[must_use]
    pub const fn new(bounds: CallBounds) -> Self {
        Self {
            bounds,
            waiting: VecDeque::new(),
            calls: 0,
            purge_at: PURGE_MIN,
        }
    }

    /// Puts something at the end. What nobody wants any more does not pile up behind calls that hang.
    pub fn push(&mut self, load: T) {
        self.waiting.push_back(load);
        if self.waiting.len() >= self.purge_at {
            self.waiting.retain(|load| !load.is_unwanted());
            self.purge_at = PURGE_MIN.max(self.waiting.len() * 2);
        }
    }

    /// What goes with a call that begins now, if one may and need be.
    pub fn begin(&mut self) -> Option<Vec<T>> {
        if self.calls >= self.bounds.calls_max {
            return None;
        }
        self.waiting.retain(|load| !load.is_unwanted());
        let (mut count, mut bytes) = (0, 0);
        let bounds = self.bounds;
        let fits = |load: &T| {
            let is_first = count == 0;
            count += load.count();
            bytes += load.bytes();
            is_first || (count <= bounds.count_max && bytes <= bounds.bytes_max)
        };
        let taken = self.waiting.iter().map(fits).take_while(|fits| *fits).count();
        if taken == 0 {
            return None;
        }
        self.calls += 1;
        Some(self.waiting.drain(..taken).collect())
    }

    /// A call has ended.
    pub fn end(&mut self) {
        self.calls = self.calls.saturating_sub(1);
    }

    /// Takes out all that waits.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.waiting.drain(..)
    }

    /// Whether nothing waits and no call is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.calls == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: CallBounds = CallBounds {
        calls_max: 2,
        count_max: 5,
        bytes_max: 100,
    };

    #[test]
    fn what_nobody_wants_does_not_pile_up_while_calls_hang() {
        let mut line = Line::new(BOUNDS);
        for _ in 0..BOUNDS.calls_max {
            line.push(Parcel(1, 1));
            assert!(line.begin().is_some());
        }
        for _ in 0..10 * PURGE_MIN {
            line.push(Parcel(1, 0));
        }
        assert!(line.waiting.len() < PURGE_MIN);
        for _ in 0..10 * PURGE_MIN {
            line.push(Parcel(1, 1));
        }
        assert!(line.drain().filter(|parcel| !parcel.is_unwanted()).count() == 10 * PURGE_MIN);
    }

    /// Parts and bytes; nobody wants what has no bytes.
    #[derive(Debug, PartialEq)]
    struct Parcel(usize, usize);

    impl Load for Parcel {
        fn count(&self) -> usize {
            self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }

        fn is_unwanted(&self) -> bool {
            self.1 == 0
        }
    }

    fn line(parcels: &[(usize, usize)]) -> Line<Parcel> {
        let mut line = Line::new(BOUNDS);
        for (count, bytes) in parcels {
            line.push(Parcel(*count, *bytes));
        }
        line
    }

    /// Parcels of each call, if every one is over before the next begins.
    fn calls(mut line: Line<Parcel>) -> Vec<usize> {
        let mut calls = Vec::new();
        while let Some(call) = line.begin() {
            calls.push(call.len());
            line.end();
        }
        assert!(line.is_idle());
        calls
    }

    #[test]
    fn what_comes_while_calls_are_under_way_goes_with_the_next() {
        let mut line = line(&[(1, 1)]);
        assert_eq!(line.begin().unwrap().len(), 1);
        line.push(Parcel(1, 1));
        assert_eq!(line.begin().unwrap().len(), 1);
        line.push(Parcel(2, 1));
        line.push(Parcel(3, 1));
        assert_eq!(line.begin(), None);
        line.end();
        assert_eq!(line.begin().unwrap(), [Parcel(2, 1), Parcel(3, 1)]);
        assert_eq!(line.begin(), None);
        assert!(!line.is_idle());
    }

    #[test]
    fn a_call_is_bounded_and_what_is_large_goes_alone() {
        assert_eq!(calls(line(&[(4, 1), (2, 1), (3, 1), (1, 1)])), [1, 2, 1]);
        assert_eq!(calls(line(&[(1, 60), (1, 40), (1, 1)])), [2, 1]);
        assert_eq!(calls(line(&[(1, 1), (1, 101), (1, 1)])), [1, 1, 1]);
        assert_eq!(calls(line(&[(9, 1), (1, 1)])), [1, 1]);
    }

    #[test]
    fn what_nobody_waits_for_is_left_out() {
        assert_eq!(calls(line(&[(1, 1), (1, 0), (1, 1), (1, 0)])), [2]);
        assert_eq!(calls(line(&[(1, 0)])), [] as [usize; 0]);
    }
}
