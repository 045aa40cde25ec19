//! What a broker is to be like, and what it finds when it begins.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use common::program::tell;

use crate::PROGRAM;
use crate::jetstream::{Cluster, Settings};
use crate::journal::{Fsync, Journal};
use crate::keeper::Keeper;
use crate::outputs::DeadLetters;
use crate::progress::screen::Shared;
use crate::queue::{Recovered, Rules};
use crate::sharing::Sharing;

/// What a broker is to be like.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The queue's bounds and rules.
    pub rules: Rules,
    /// Where what it keeps outlives it.
    pub keeping: Keeping<'a>,
    /// The file that results go to; else they go to stdout.
    pub output: Option<&'a Path>,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// The screen that results on stdout share with others.
    pub screen: Option<Shared>,
    /// Before it sleeps, it keeps looking for news so long.
    pub spin: Duration,
}

/// Where what a queue keeps outlives its coordinator.
#[derive(Clone, Debug)]
pub enum Keeping<'a> {
    /// Nowhere.
    Nowhere,
    /// In a journal.
    Journal {
        /// The folder.
        folder: &'a Path,
        /// What its entries survive.
        fsync: Fsync,
        /// Which producers have finished is to be found out anew: they are our own, and look at their inputs again.
        anew: bool,
    },
    /// At servers, shared with other machines.
    Shared(Box<Settings>),
}

/// Opens what keeps a queue, and finds out what it holds. The servers of a shared queue may lower the largest item.
pub(super) fn open(
    keeping: Keeping<'_>,
    rules: &mut Rules,
    has_output: bool,
    wake: impl Fn() + Send + 'static,
) -> Result<(Keeper, Recovered)> {
    let (folder, fsync, anew) = match keeping {
        Keeping::Nowhere => return Ok((Keeper::Nothing, Recovered::default())),
        Keeping::Journal { folder, fsync, anew } => (folder, fsync, anew),
        Keeping::Shared(settings) => {
            let cluster = Cluster::open(*settings, wake)?;
            rules.item_bytes_max = cluster.item_bytes_max();
            return Ok((Keeper::Servers(Box::new(Sharing::new(cluster))), Recovered::default()));
        }
    };
    let (journal, mut recovered) = Journal::open(folder, fsync, rules.item_bytes_max, wake)?;
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
    Ok((Keeper::Journal(journal), recovered))
}

/// How many descriptors this process may have.
pub(super) fn descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
