//! What has to be remembered of everything at once, in eight bytes each: a million orders have some forty million of
//! these, events and effects and keys.

/// A set of hashes that is filled first and asked then.
#[derive(Debug, Default)]
pub struct Hashes {
    all: Vec<u64>,
    /// So many of them are in order.
    sorted: usize,
}

impl Hashes {
    pub fn insert(&mut self, hash: u64) {
        self.all.push(hash);
    }

    /// Puts them in order; returns those that were there more than once.
    pub fn settle(&mut self) -> Vec<u64> {
        self.all.sort_unstable();
        let mut twice: Vec<u64> = self.all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        twice.dedup();
        self.all.dedup();
        self.sorted = self.all.len();
        twice
    }

    /// The place of a hash, if it is in the set; see [`Hashes::settle`].
    #[must_use]
    pub fn place(&self, hash: u64) -> Option<usize> {
        debug_assert_eq!(self.sorted, self.all.len(), "asked before it was settled");
        self.all.binary_search(&hash).ok()
    }

    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.place(hash).is_some()
    }

    /// All of them, in order of place.
    #[must_use]
    pub fn all(&self) -> &[u64] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_in_it_once_and_repeats_are_told() {
        let mut hashes = Hashes::default();
        [3, 1, 2, 3, 3, 1].into_iter().for_each(|hash| hashes.insert(hash));
        assert_eq!(hashes.settle(), [1, 3]);
        assert_eq!(hashes.all(), [1, 2, 3]);
        assert!(hashes.contains(2) && !hashes.contains(4));
    }
}
