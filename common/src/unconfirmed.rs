//! What a producer has put and nobody has confirmed: kept by one that comes again after its connection was lost, to put it again.

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::checksum;
use crate::error::Error;
use crate::limits::batch_cost_bytes;
use crate::message::Position;
use crate::session::Greeting;

/// Batches in the order in which they were sealed, from the first item that is not confirmed on.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    batches: VecDeque<Sealed>,
    /// Of the batches, so many have been put on the connection that there is, or was last.
    put: usize,
    first: Position,
    /// Behind the last item that has been put.
    next: Position,
    /// That of all items before `first`, if the coordinator keeps one.
    checksum: Option<u64>,
}

/// A batch, and the checksum of all items up to its end.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) batch: Batch,
    pub(crate) checksum: Option<u64>,
}

impl Sealed {
    /// `batch` behind items that have the checksum `before`.
    pub(crate) fn after(before: Option<u64>, batch: Batch) -> Sealed {
        Sealed { checksum: before.map(|before| batch.iter().fold(before, checksum::add)), batch }
    }
}

impl Unconfirmed {
    /// None, behind what the coordinator has accepted.
    pub(crate) fn new(greeting: &Greeting) -> Unconfirmed {
        Unconfirmed { batches: VecDeque::new(), put: 0, first: greeting.position, next: greeting.position, checksum: greeting.checksum }
    }

    /// Keeps a batch that is not put yet.
    pub(crate) fn keep(&mut self, sealed: Sealed) {
        self.batches.push_back(sealed);
    }

    /// The next batch to be put, or the part of it that this credit covers, and its first item's position. It counts as put.
    pub(crate) fn put_next(&mut self, credit_items: u64, credit_bytes: u64) -> Option<(Position, Sealed)> {
        let next = self.batches.get(self.put)?.clone();
        let all = next.batch.count();
        let mut count = u64::from(all).min(credit_items) as u32;
        while count > 0 && batch_cost_bytes(next.batch.slice(0, count).body_bytes()) > credit_bytes {
            count /= 2;
        }
        if count == 0 {
            return None;
        }
        let position = self.next;
        if count < all {
            self.cut(self.put, count);
        }
        self.put += 1;
        self.next.0 += u64::from(count);
        Some((position, self.batches[self.put - 1].clone()))
    }

    /// The credit in bytes that the next item to be put needs at least; none when all is put.
    pub(crate) fn needed_bytes(&self) -> Option<u64> {
        let next = self.batches.get(self.put)?;
        Some(batch_cost_bytes(next.batch.item(0).len() as u64 + 4))
    }

    /// True when everything that is kept has been put.
    pub(crate) fn is_all_put(&self) -> bool {
        self.put == self.batches.len()
    }

    /// The position behind the last item that has been put.
    pub(crate) fn next_position(&self) -> Position {
        self.next
    }

    /// Lets go of what is before `position`, which is not beyond what was put.
    pub(crate) fn confirm(&mut self, position: Position) {
        while self.first < position {
            let Some(front) = self.batches.front() else { return };
            let (left, count) = (position.0 - self.first.0, front.batch.count());
            if left < u64::from(count) {
                self.cut(0, left as u32);
                self.put += 1;
                continue;
            }
            self.first.0 += u64::from(count);
            self.checksum = front.checksum;
            self.batches.pop_front();
            self.put -= 1;
        }
    }

    /// A new connection's greeting says what was accepted; the rest is to be put again. Returns the checksum of all items.
    pub(crate) fn rewind(&mut self, greeting: &Greeting) -> Result<Option<u64>, Error> {
        let (confirmed, position) = (self.first, greeting.position);
        if position < confirmed {
            return Err(Error::Forgotten { position, confirmed });
        }
        if position > self.next {
            return Err(Error::Foreign { position });
        }
        self.confirm(position);
        match (self.checksum, greeting.checksum) {
            (Some(ours), Some(theirs)) if ours != theirs => return Err(Error::Foreign { position }),
            (Some(_), Some(_)) => {}
            (_, theirs) => {
                self.checksum = theirs;
                let mut before = theirs;
                for sealed in &mut self.batches {
                    *sealed = Sealed::after(before, sealed.batch.clone());
                    before = sealed.checksum;
                }
            }
        }
        (self.put, self.next) = (0, self.first);
        Ok(self.batches.back().map_or(self.checksum, |last| last.checksum))
    }

    /// Makes two of the batch at `index`, the first of `count` items.
    fn cut(&mut self, index: usize, count: u32) {
        let before = if index == 0 { self.checksum } else { self.batches[index - 1].checksum };
        let whole = &mut self.batches[index];
        let head = Sealed::after(before, whole.batch.slice(0, count));
        whole.batch = whole.batch.slice(count, whole.batch.count() - count);
        self.batches.insert(index, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    fn greeting(position: u64, checksum: Option<u64>) -> Greeting {
        Greeting { pid: 1, item_bytes_max: 1000, position: Position(position), announce_from: 2, checksum, lease: None }
    }

    fn sum(items: &[&str]) -> Option<u64> {
        Some(items.iter().fold(checksum::START, |sum, item| checksum::add(sum, item.as_bytes())))
    }

    /// One batch each, all put, behind `before`.
    fn put_behind(before: &[&str], batches: &[&[&str]]) -> Unconfirmed {
        let mut unconfirmed = Unconfirmed::new(&greeting(before.len() as u64, sum(before)));
        let mut checksum = sum(before);
        for items in batches {
            let mut builder = BatchBuilder::default();
            items.iter().for_each(|item| builder.push_bytes(item.as_bytes()));
            let sealed = Sealed::after(checksum, builder.take_batch().unwrap());
            checksum = sealed.checksum;
            unconfirmed.keep(sealed);
        }
        while unconfirmed.put_next(u64::MAX, u64::MAX).is_some() {}
        unconfirmed
    }

    fn next(unconfirmed: &mut Unconfirmed, items: u64, bytes: u64) -> Option<(u64, String, Option<u64>)> {
        let (position, Sealed { batch, checksum }) = unconfirmed.put_next(items, bytes)?;
        let items = batch.iter().map(|item| String::from_utf8(item.to_vec()).unwrap());
        Some((position.0, items.collect::<Vec<_>>().join(" "), checksum))
    }

    #[test]
    fn what_is_not_accepted_is_put_again_from_the_middle_of_a_batch_on() {
        let mut unconfirmed = put_behind(&["a", "b"], &[&["c", "dd", "eee"], &["f", "g"]]);
        let accepted = sum(&["a", "b", "c"]);
        assert_eq!(unconfirmed.rewind(&greeting(3, accepted)).unwrap(), sum(&["a", "b", "c", "dd", "eee", "f", "g"]));
        let expected = (3, "dd eee".to_string(), sum(&["a", "b", "c", "dd", "eee"]));
        assert_eq!(next(&mut unconfirmed, 9, 9999), Some(expected));
        assert_eq!(next(&mut unconfirmed, 9, 9999), Some((5, "f g".to_string(), sum(&["a", "b", "c", "dd", "eee", "f", "g"]))));
        assert_eq!(next(&mut unconfirmed, 9, 9999), None);
        assert_eq!(unconfirmed.next_position(), Position(7));
    }

    #[test]
    fn what_little_credit_covers_is_put_in_parts() {
        let mut unconfirmed = put_behind(&[], &[&["a", "bb", "ccc", "d", "ee"]]);
        unconfirmed.rewind(&greeting(0, sum(&[]))).unwrap();
        assert_eq!(next(&mut unconfirmed, 0, 9999), None);
        assert_eq!(next(&mut unconfirmed, 9, batch_cost_bytes(4)), None, "a table takes four bytes more");
        assert_eq!(unconfirmed.needed_bytes(), Some(batch_cost_bytes(1 + 4)));
        assert_eq!(next(&mut unconfirmed, 1, 9999), Some((0, "a".into(), sum(&["a"]))));
        assert_eq!(next(&mut unconfirmed, 9, batch_cost_bytes(5 + 8)), Some((1, "bb ccc".into(), sum(&["a", "bb", "ccc"]))));
        unconfirmed.confirm(Position(2));
        assert_eq!(next(&mut unconfirmed, 9, 9999), Some((3, "d ee".into(), sum(&["a", "bb", "ccc", "d", "ee"]))));
        unconfirmed.confirm(Position(5));
        assert!(unconfirmed.is_all_put() && unconfirmed.batches.is_empty());
    }

    #[test]
    fn one_that_forgot_what_it_had_confirmed_is_found_out() {
        let mut unconfirmed = put_behind(&[], &[&["a", "b"], &["c"]]);
        unconfirmed.confirm(Position(2));
        let forgotten = unconfirmed.rewind(&greeting(1, sum(&["a"]))).unwrap_err();
        assert!(matches!(forgotten, Error::Forgotten { position: Position(1), confirmed: Position(2) }), "{forgotten}");
    }

    #[test]
    fn one_that_knows_others_items_under_the_name_is_found_out() {
        let more = put_behind(&[], &[&["a"]]).rewind(&greeting(2, sum(&["a", "x"]))).unwrap_err();
        assert!(matches!(more, Error::Foreign { position: Position(2) }), "{more}");
        let others = put_behind(&[], &[&["a", "b"]]).rewind(&greeting(1, sum(&["x"]))).unwrap_err();
        assert!(matches!(others, Error::Foreign { position: Position(1) }), "{others}");
    }

    #[test]
    fn one_that_keeps_checksums_now_gets_them_and_one_that_does_not_gets_none() {
        let mut unconfirmed = put_behind(&[], &[&["a", "b"]]);
        unconfirmed.rewind(&greeting(0, None)).unwrap();
        assert_eq!(next(&mut unconfirmed, 1, 9999), Some((0, "a".into(), None)));
        unconfirmed.rewind(&greeting(1, sum(&["a"]))).unwrap();
        assert_eq!(next(&mut unconfirmed, 9, 9999), Some((1, "b".into(), sum(&["a", "b"]))));
    }
}
