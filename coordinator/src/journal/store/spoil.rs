//! Makes files wrong, for tests.

use std::path::Path;

use redb::Database;

use super::super::group::Totals;
use super::super::record::Kind;
use super::{FORMAT, META, TOTALS, decode, put_totals, read_meta};

/// Makes a file say that it is something else.
pub(in super::super) fn set_format(path: &Path, format: &[u8]) {
    let transaction = Database::open(path).unwrap().begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(FORMAT, format).unwrap();
    transaction.commit().unwrap();
}

/// Makes the totals wrong.
pub(in super::super) fn add_to_totals(path: &Path, items: u64) {
    let database = Database::open(path).unwrap();
    let mut totals: Totals = decode(Kind::Totals, b"", &read_meta(&database, TOTALS).unwrap().unwrap()).unwrap();
    totals.items += items;
    let transaction = database.begin_write().unwrap();
    put_totals(&transaction, &totals).unwrap();
    transaction.commit().unwrap();
}
