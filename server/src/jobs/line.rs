//! Who comes next.

use std::collections::VecDeque;

/// Those who wait, in a fair order: owners take turns, and what one of them has comes in the order in which it came.
#[derive(Debug)]
pub struct Line<O, T> {
    owners: VecDeque<(O, VecDeque<T>)>,
}

impl<O, T> Default for Line<O, T> {
    fn default() -> Self {
        Self { owners: VecDeque::new() }
    }
}

impl<O: PartialEq, T> Line<O, T> {
    /// Puts `item` behind all that `owner` has here. Who had nothing takes a turn after everyone else.
    pub fn push(&mut self, owner: O, item: T) {
        match self.owners.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, items)) => items.push_back(item),
            None => self.owners.push_back((owner, VecDeque::from([item]))),
        }
    }

    /// Takes the next out, if it may come now. Then all other owners come before its owner's next.
    pub fn next_if(&mut self, may: impl FnOnce(&T) -> bool) -> Option<T> {
        if !may(self.iter().next()?) {
            return None;
        }
        let (owner, mut items) = self.owners.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.owners.push_back((owner, items));
        }
        item
    }

    /// Takes all out for which `is` holds, in their order.
    pub fn remove(&mut self, is: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut kept, mut removed) = (VecDeque::new(), Vec::new());
        for (owner, items) in self.owners.drain(..) {
            let (out, stay): (VecDeque<_>, VecDeque<_>) = items.into_iter().partition(&is);
            removed.extend(out);
            if !stay.is_empty() {
                kept.push_back((owner, stay));
            }
        }
        self.owners = kept;
        removed
    }

    /// Everyone, in the order in which they come if nobody else joins.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let rounds = self.owners.iter().map(|(_, items)| items.len()).max().unwrap_or(0);
        (0..rounds).flat_map(|round| self.owners.iter().filter_map(move |(_, items)| items.get(round)))
    }

    /// How many of that owner's wait.
    pub fn count_of(&self, owner: &O) -> usize {
        self.owners.iter().find(|(other, _)| other == owner).map_or(0, |(_, items)| items.len())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.owners.iter().map(|(_, items)| items.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(names: &[&'static str]) -> Line<char, &'static str> {
        let mut line = Line::default();
        for name in names {
            line.push(name.chars().next().unwrap(), *name);
        }
        line
    }

    #[test]
    fn owners_take_turns() {
        let mut line = line(&["a1", "a2", "a3", "b1", "c1", "c2"]);
        let foreseen: Vec<_> = line.iter().copied().collect();
        assert_eq!(foreseen, ["a1", "b1", "c1", "a2", "c2", "a3"]);
        let came: Vec<_> = std::iter::from_fn(|| line.next_if(|_| true)).collect();
        assert_eq!(came, foreseen);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn many_of_one_owner_do_not_keep_another_waiting() {
        let mut line = line(&["a1", "a2", "a3", "a4"]);
        assert_eq!(line.next_if(|_| true), Some("a1"));
        line.push('b', "b1");
        assert_eq!(line.iter().position(|name| *name == "b1"), Some(1));
        // Who comes back after a turn stands behind the others.
        line.push('a', "a1 again");
        assert_eq!(line.iter().last(), Some(&"a1 again"));
        assert_eq!((line.len(), line.count_of(&'a'), line.count_of(&'c')), (5, 4, 0));
    }

    #[test]
    fn nobody_overtakes_who_cannot_come_yet() {
        let mut line = line(&["a1", "b1"]);
        assert_eq!(line.next_if(|name| *name == "b1"), None);
        assert_eq!(line.remove(|name| *name == "a1"), ["a1"]);
        assert_eq!(line.next_if(|name| *name == "b1"), Some("b1"));
    }
}
