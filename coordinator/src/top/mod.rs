//! A live view of a queue, over a terminal's whole screen. The only folder that names `ratatui` and `crossterm`.
//!
//! `feed`: a thread that asks the coordinator, so that a slow answer holds up no key; `state`: what is known and what the user looks at;
//! `draw`: how that looks. Here: the terminal, its keys and signals.

mod draw;
mod feed;
mod state;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use common::program::{EXIT_DONE, EXIT_SIGNAL_BASE, tell};
use common::{Control, Endpoint};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::PROGRAM;
use crate::limits::TOP_LOOK;
use crate::style::Style;
use feed::{Feed, News, Order};
use state::State;

/// What is to be done about a key.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit(u8),
    Suspend,
    Order(Order),
}

/// Shows a coordinator's queue until the user has seen enough, or the coordinator is gone.
pub fn top(endpoint: &Endpoint, interval: Duration) -> Result<u8> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("top needs a terminal for its keys and its screen; `coordinator status` shows the same once");
    }
    // Before the screen is taken: who is not there is told of in the usual way.
    let control = Control::connect(endpoint)?;
    let pid = control.coordinator_pid();
    let caught = catch_signals().context("cannot catch signals")?;
    let feed = Feed::start(control, interval).context("cannot start a thread")?;
    let mut state = State::new(endpoint.path().display().to_string(), pid, interval);
    let mut terminal = ratatui::try_init().context("cannot use this terminal")?;
    let watched = watch(&mut terminal, &mut state, &feed, &caught);
    ratatui::restore();
    let end = watched?;
    if let End::Gone(why) = &end {
        tell(PROGRAM, format_args!("{}", state.last_words(why.as_deref())));
    }
    Ok(match end {
        End::Quit(code) => code,
        End::Gone(_) => EXIT_DONE,
    })
}

enum End {
    Quit(u8),
    Gone(Option<String>),
}

fn watch(terminal: &mut DefaultTerminal, state: &mut State, feed: &Feed, caught: &AtomicUsize) -> Result<End> {
    let style = Style::from_env();
    let started = Instant::now();
    loop {
        state.now = started.elapsed();
        loop {
            match feed.news() {
                Ok(News::Figures(status, clients)) => state.take(*status, clients),
                Ok(News::Done(words)) => state.words = Some(words),
                Ok(News::Gone(why)) => return Ok(End::Gone(why)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("the thread that asks the coordinator has ended before its time"),
            }
        }
        terminal.draw(|frame| draw::draw(frame, state, style)).context("cannot draw")?;
        let signal = caught.load(Ordering::Relaxed);
        if signal != 0 {
            return Ok(End::Quit(EXIT_SIGNAL_BASE + signal as u8));
        }
        if !event::poll(TOP_LOOK).context("cannot read keys")? {
            continue;
        }
        let Event::Key(key) = event::read().context("cannot read keys")? else { continue };
        match wish(key, state) {
            Wish::Nothing => {}
            Wish::Quit(code) => return Ok(End::Quit(code)),
            Wish::Order(order) => feed.order(order),
            Wish::Suspend => {
                terminal.show_cursor().context("cannot show the cursor")?;
                ratatui::restore();
                // The shell has the terminal until it continues us.
                let _ = kill_process(getpid(), Signal::TSTP);
                *terminal = ratatui::try_init().context("cannot use this terminal")?;
            }
        }
    }
}

fn wish(key: KeyEvent, state: &mut State) -> Wish {
    if key.kind == KeyEventKind::Release {
        return Wish::Nothing;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Wish::Quit(EXIT_SIGNAL_BASE + SIGINT as u8),
            KeyCode::Char('z') => Wish::Suspend,
            _ => Wish::Nothing,
        };
    }
    if std::mem::take(&mut state.confirms_stop) {
        return if matches!(key.code, KeyCode::Char('y' | 'Y')) { Wish::Order(Order::Stop) } else { Wish::Nothing };
    }
    state.words = None;
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit(EXIT_DONE),
        KeyCode::Char('s') => state.confirms_stop = true,
        KeyCode::Char('p') => return Wish::Order(Order::SetPaused(!state.is_paused())),
        KeyCode::Down | KeyCode::Char('j') => state.scroll = state.scroll.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => state.scroll = state.scroll.saturating_sub(1),
        KeyCode::PageDown => state.scroll = state.scroll.saturating_add(10),
        KeyCode::PageUp => state.scroll = state.scroll.saturating_sub(10),
        KeyCode::Home => state.scroll = 0,
        KeyCode::End => state.scroll = usize::MAX,
        _ => {}
    }
    Wish::Nothing
}

/// The number of a signal that asks us to end, once one has come.
fn catch_signals() -> io::Result<Arc<AtomicUsize>> {
    let caught = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(signal, Arc::clone(&caught), signal as usize)?;
    }
    Ok(caught)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Wish {
        wish(KeyEvent::new(code, KeyModifiers::NONE), state)
    }

    #[test]
    fn to_stop_takes_two_keys_and_any_other_than_yes_is_no() {
        let mut state = State::new("q.sock".into(), 1, Duration::from_secs(1));
        assert_eq!(press(&mut state, KeyCode::Char('y')), Wish::Nothing);
        assert_eq!(press(&mut state, KeyCode::Char('s')), Wish::Nothing);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Wish::Nothing, "an answer");
        assert_eq!(press(&mut state, KeyCode::Char('y')), Wish::Nothing);
        press(&mut state, KeyCode::Char('s'));
        assert_eq!(press(&mut state, KeyCode::Char('y')), Wish::Order(Order::Stop));
        assert_eq!(press(&mut state, KeyCode::Char('q')), Wish::Quit(EXIT_DONE));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(interrupt, &mut state), Wish::Quit(130));
    }
}
