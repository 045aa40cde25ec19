//! What a broker is to be like, and what it finds when it begins.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use common::program::tell;

use crate::PROGRAM;
use crate::journal::{Fsync, Journal};
use crate::outputs::DeadLetters;
use crate::progress::screen::Shared;
use crate::queue::{Recovered, Rules};

/// What a broker is to be like.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The queue's bounds and rules.
    pub rules: Rules,
    /// Where its journal is, if it has one.
    pub keeping: Option<Keeping<'a>>,
    /// The file that results go to; else they go to stdout.
    pub output: Option<&'a Path>,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// The screen that results on stdout share with others.
    pub screen: Option<Shared>,
    /// Before it sleeps, it keeps looking for news so long.
    pub spin: Duration,
}

/// Where a queue's journal is.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// What its entries survive.
    pub fsync: Fsync,
    /// Which producers have finished is to be found out anew: they are our own, and look at their inputs again.
    pub anew: bool,
}

pub(super) fn open_journal(
    Keeping { folder, fsync, anew }: Keeping<'_>,
    item_bytes_max: u64,
    has_output: bool,
    wake: impl Fn() + Send + 'static,
) -> Result<(Option<Journal>, Recovered)> {
    let (journal, mut recovered) = Journal::open(folder, fsync, item_bytes_max, wake)?;
    if recovered.output_bytes.is_some() && !has_output {
        bail!("the results so far, by the journal in {}, are in a file; give the same --output as before", folder.display());
    }
    let Recovered { items, acknowledged, dead, .. } = recovered;
    if items + acknowledged + dead > 0 {
        let items = if items == 1 { "1 item".into() } else { format!("{items} items") };
        let dead = if dead > 0 { format!(", {dead} went to the dead letters") } else { String::new() };
        let folder = folder.display();
        tell(PROGRAM, format_args!("going on with {items} from the journal in {folder}; {acknowledged} were done before{dead}"));
    }
    if anew {
        recovered.finished_unnamed = 0;
        recovered.producers.iter_mut().for_each(|(_, finished)| *finished = false);
    }
    Ok((Some(journal), recovered))
}

/// How many descriptors this process may have.
pub(super) fn descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
