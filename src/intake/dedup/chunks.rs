//! A queue in chunks of one size. A `VecDeque` that doubles copies all of its elements while the
//! lock is held, and for that time takes three times its memory.

use std::collections::VecDeque;

/// The size of a chunk.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// The place of an element, for as long as it is in the queue: how many were added before it, cut
/// to 31 bits. As bytes, because an entry with an aligned integer would be padded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place([u8; 4]);

const PLACE_BITS: u32 = 31;

impl Place {
    /// The place of no element.
    pub(super) const NONE: Self = Self([u8::MAX; 4]);

    fn new(position: u64) -> Self {
        Self((position as u32 & Self::mask()).to_ne_bytes())
    }

    fn mask() -> u32 {
        (1 << PLACE_BITS) - 1
    }
}

/// The queue.
pub(super) struct Chunks<T> {
    /// Each has the capacity of a chunk, and all but the first and the last are full.
    chunks: VecDeque<VecDeque<T>>,
    /// The chunk that was emptied last. While the length stays about the same, nothing is allocated.
    spare: Option<VecDeque<T>>,
    len: usize,
    first: u64,
}

impl<T> Chunks<T> {
    const PER_CHUNK: usize = CHUNK_BYTES / size_of::<T>();

    /// How many elements were added before the front.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// How many elements were added.
    pub(super) fn end(&self) -> u64 {
        self.first + self.len as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The allocated bytes, always with a spare chunk.
    pub(super) fn bytes(&self) -> usize {
        (self.chunks.len() + 1) * CHUNK_BYTES + self.chunks.capacity() * size_of::<VecDeque<T>>()
    }

    /// Where the front is.
    pub(super) fn first_place(&self) -> Place {
        Place::new(self.first)
    }

    /// Where the next element will be.
    pub(super) fn next_place(&self) -> Place {
        Place::new(self.end())
    }

    pub(super) fn push_back(&mut self, element: T) -> Place {
        let place = self.next_place();
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < Self::PER_CHUNK => chunk.push_back(element),
            _ => {
                let spare = self.spare.take();
                let mut chunk = spare.unwrap_or_else(|| VecDeque::with_capacity(Self::PER_CHUNK));
                chunk.push_back(element);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
        place
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.chunks.front()?.front()
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let chunk = self.chunks.front_mut()?;
        let element = chunk.pop_front()?;
        if chunk.is_empty() && self.chunks.len() > 1 {
            self.spare = self.chunks.pop_front();
        }
        self.len -= 1;
        self.first += 1;
        Some(element)
    }

    pub(super) fn get(&self, place: Place) -> Option<&T> {
        let (chunk, index) = self.locate(place)?;
        self.chunks.get(chunk)?.get(index)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        let (chunk, index) = self.locate(place)?;
        self.chunks.get_mut(chunk)?.get_mut(index)
    }

    fn locate(&self, place: Place) -> Option<(usize, usize)> {
        if place == Place::NONE {
            return None;
        }
        let place = u32::from_ne_bytes(place.0);
        let index = (place.wrapping_sub(self.first as u32) & Place::mask()) as usize;
        let in_front = self.chunks.front()?.len();
        Some(match index.checked_sub(in_front) {
            None => (0, index),
            Some(behind) => (1 + behind / Self::PER_CHUNK, behind % Self::PER_CHUNK),
        })
    }
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self {
            chunks: VecDeque::new(),
            spare: None,
            len: 0,
            // Places start anew soon, so that every run and most tests pass that point.
            first: (1 << PLACE_BITS) - 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found_at_its_place_until_it_leaves() {
        let mut queue = Chunks::default();
        let mut places = Vec::new();
        for number in 0..50_000_u64 {
            places.push(queue.push_back(number));
            if number % 3 == 0 {
                queue.pop_front();
            }
        }
        let gone = places.len() - queue.len();
        for (number, place) in places.iter().enumerate() {
            let expected = (number >= gone).then_some(number as u64);
            assert_eq!(queue.get(*place).copied(), expected, "{number}");
        }
        assert_eq!(queue.front(), Some(&(gone as u64)));
        assert!(queue.get(Place::NONE).is_none());
    }

    #[test]
    fn an_emptied_queue_keeps_one_chunk_and_a_spare_one() {
        let mut queue = Chunks::default();
        for _ in 0..3 * Chunks::<[u8; 64]>::PER_CHUNK {
            queue.push_back([0_u8; 64]);
        }
        assert_eq!(queue.chunks.len(), 3);
        for chunk in &queue.chunks {
            assert!(chunk.capacity() * size_of::<[u8; 64]>() <= CHUNK_BYTES);
        }
        while queue.pop_front().is_some() {}
        assert_eq!((queue.len(), queue.chunks.len()), (0, 1));
        assert!(queue.spare.is_some());
        assert_eq!(queue.bytes() / CHUNK_BYTES, 2);
    }
}
