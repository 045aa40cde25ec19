//! How it looks: a head with the queue's figures, their course, the lists of producers and consumers, and the keys. On whatever screen:
//! what does not fit is left out, from below and from the right.

use std::time::Duration;

use common::Status;
use common::status::{ClientStatus, Work};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Look};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, RenderDirection, Row, Sparkline, Table};

use super::state::{History, State};
use crate::status::{doing_in_words, shared_in_words};
use crate::style::Style;
use crate::words;

/// Bars for a terminal that has ASCII alone.
const ASCII_BARS: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "+",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: "-",
    one_eighth: ".",
    empty: " ",
};

/// Rows from which on there is room for courses of three rows each.
const TALL: u16 = 40;

/// Rows below which courses would push out the clients, and then the keys.
const SHORT: u16 = 16;

/// Columns of a bar that shows how full the queue is.
const BAR_COLUMNS: usize = 20;

/// Columns before a course: what it is, and its newest figure.
const COURSE_LABEL_COLUMNS: u16 = 22;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, style: Style) {
    let looks = Looks { style };
    let course_rows = match frame.area().height {
        ..SHORT => 0,
        SHORT..TALL => 1,
        TALL.. => 3,
    };
    let rows = [1, 1, 1, 1, 1, 1, course_rows, course_rows, course_rows, 1].map(Constraint::Length);
    let rows = rows.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]);
    let areas = Layout::vertical(rows).split(frame.area());
    frame.render_widget(head(state, looks, areas[0].width), areas[0]);
    if let Some(status) = &state.status {
        frame.render_widget(items(status, usize::from(areas[2].width), looks), areas[2]);
        let bytes = [words::size(status.bytes), words::size(status.capacity_bytes)];
        let counts = [words::count(status.stored()), words::count(status.capacity_items)];
        frame.render_widget(fullness("queue", counts, "items", status.stored(), status.capacity_items, looks), areas[3]);
        frame.render_widget(fullness("", bytes, "", status.bytes, status.capacity_bytes, looks), areas[4]);
        if let Some(shared) = &status.shared {
            let label = Span::styled(format!("{:<9}", "shared"), looks.label());
            frame.render_widget(Line::from_iter([label, Span::raw(shared_in_words(shared))]), areas[5]);
        }
        let rate = |history: &History| history.front().map_or_else(String::new, |rate| words::rate(*rate as f64));
        course(frame, areas[6], "put", &rate(&state.put), &state.put, looks);
        course(frame, areas[7], "done", &rate(&state.done), &state.done, looks);
        course(frame, areas[8], "in queue", &words::count(status.stored()), &state.depth, looks);
        lists(frame, areas[10], state, looks);
    } else {
        frame.render_widget(Line::from("waiting for the coordinator's answer"), areas[2]);
    }
    frame.render_widget(keys(state, looks), areas[11]);
}

/// What things look like here.
#[derive(Clone, Copy)]
struct Looks {
    style: Style,
}

impl Looks {
    fn colour(self, colour: Color) -> Look {
        if self.style.colour { Look::new().fg(colour) } else { Look::new() }
    }

    fn title(self) -> Look {
        Look::new().add_modifier(Modifier::BOLD)
    }

    fn label(self) -> Look {
        Look::new().add_modifier(Modifier::DIM)
    }

    fn heading(self) -> Look {
        Look::new().add_modifier(Modifier::REVERSED)
    }

    /// What is to be noticed if there is any of it.
    fn if_any(self, number: u64, colour: Color) -> Look {
        if number > 0 { self.colour(colour).add_modifier(Modifier::BOLD) } else { Look::new() }
    }
}

fn head<'a>(state: &'a State, looks: Looks, columns: u16) -> Line<'a> {
    let mut spans = vec![Span::styled("procq", looks.title())];
    if let Some(status) = &state.status {
        let uptime = words::time(Duration::from_millis(status.uptime_ms));
        spans.push(Span::raw(format!("  pid {}  up {uptime}  ", status.pid)));
        let colour = if status.paused { Color::Yellow } else { Color::Green };
        spans.push(Span::styled(doing_in_words(status), looks.colour(colour)));
    }
    if let Some(silence) = state.silence() {
        let look = looks.colour(Color::Red).add_modifier(Modifier::REVERSED);
        spans.push(Span::raw("  "));
        spans.push(Span::styled(format!(" no answer for {} ", words::time(silence)), look));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let place = Span::raw(&state.socket);
    let free = usize::from(columns).saturating_sub(used + 2);
    if place.width() <= free {
        spans.push(Span::raw(" ".repeat(free + 2 - place.width())));
        spans.push(Span::styled(&state.socket[..], looks.label()));
    }
    Line::from(spans)
}

fn items(status: &Status, columns: usize, looks: Looks) -> Line<'static> {
    let plain = Look::new();
    let figures = [
        ("ready", status.ready, plain),
        ("delayed", status.delayed, plain),
        ("held", status.held, plain),
        ("done", status.acknowledged, plain),
        ("retried", status.redelivered, looks.if_any(status.redelivered, Color::Yellow)),
        ("dead", status.dead, looks.if_any(status.dead, Color::Red)),
    ];
    let line = |number: fn(u64) -> String| {
        let label = Span::styled(format!("{:<9}", "items"), looks.label());
        let figures = figures.iter().map(|(what, figure, look)| Span::styled(format!("{} {what}", number(*figure)), *look));
        Line::from_iter(std::iter::once(label).chain(figures.flat_map(|figure| [figure, Span::raw("  ")])))
    };
    let exact = line(words::count);
    // Two columns behind the last one are empty.
    if exact.width() <= columns + 2 { exact } else { line(|number| words::short(number as f64)) }
}

fn fullness(label: &str, [part, whole]: [String; 2], unit: &str, filled: u64, of: u64, looks: Looks) -> Line<'static> {
    let columns = (u128::from(filled) * BAR_COLUMNS as u128 / u128::from(of.max(1))).min(BAR_COLUMNS as u128) as usize;
    let (full, rest) = match looks.style {
        Style { unicode: true, colour: true } => ("━", "━"),
        Style { unicode: true, colour: false } => ("━", "─"),
        Style { unicode: false, .. } => ("=", "."),
    };
    let colour = if filled >= of { Color::Yellow } else { Color::Green };
    let text = format!("  {:>3}%  {part} of {whole} {unit}", words::percent(filled, of));
    Line::from(vec![
        Span::styled(format!("{label:<9}"), looks.label()),
        Span::styled(full.repeat(columns), looks.colour(colour)),
        Span::styled(rest.repeat(BAR_COLUMNS - columns), looks.label()),
        Span::raw(text),
    ])
}

fn course(frame: &mut Frame<'_>, area: Rect, label: &str, figure: &str, history: &History, looks: Looks) {
    let [left, right] = Layout::horizontal([Constraint::Length(COURSE_LABEL_COLUMNS), Constraint::Min(0)]).areas(area);
    let words = Line::from(vec![Span::styled(format!("{label:<9}"), looks.label()), Span::styled(format!("{figure:>11}"), looks.title())]);
    frame.render_widget(Paragraph::new(words), Rect { y: left.bottom().saturating_sub(1), height: left.height.min(1), ..left });
    let data: Vec<u64> = history.iter().take(usize::from(right.width)).copied().collect();
    let bars = if looks.style.unicode { bar::NINE_LEVELS } else { ASCII_BARS };
    // Not quite to the top, or the courses of steady figures would run into one.
    let top = data.iter().max().copied().unwrap_or_default();
    let sparkline = Sparkline::default().max((top + top / 7).max(1)).data(data).direction(RenderDirection::RightToLeft).bar_set(bars);
    frame.render_widget(sparkline.style(looks.colour(Color::Cyan)), right);
}

fn lists(frame: &mut Frame<'_>, area: Rect, state: &State, looks: Looks) {
    let is_producer = |client: &&ClientStatus| matches!(client.work, Work::Producer { .. });
    let is_consumer = |client: &&ClientStatus| matches!(client.work, Work::Consumer { .. });
    let producers: Vec<&ClientStatus> = state.clients.iter().filter(is_producer).collect();
    let consumers: Vec<&ClientStatus> = state.clients.iter().filter(is_consumer).collect();
    // Producers get what consumers leave, and a third at least.
    let rows = area.height.saturating_sub(3);
    let wanted = rows_of(&producers);
    let for_producers = wanted.min((rows / 3).max(rows.saturating_sub(rows_of(&consumers))));
    let parts = [for_producers + 1, 1].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
    let areas = Layout::vertical(parts).split(area);
    list(frame, areas[0], &PRODUCER_COLUMNS, "PRODUCERS", &producers, state, looks, producer_row);
    list(frame, areas[2], &CONSUMER_COLUMNS, "CONSUMERS", &consumers, state, looks, consumer_row);
}

fn rows_of(clients: &[&ClientStatus]) -> u16 {
    u16::try_from(clients.len().max(1)).unwrap_or(u16::MAX)
}

/// A column: its heading, its width, and whether it holds numbers.
type Column = (&'static str, u16, bool);

const PRODUCER_COLUMNS: [Column; 7] = [
    ("", 15, false),
    ("PID", 8, true),
    ("ACCEPTED", 13, true),
    ("RATE", 8, true),
    ("PARKED", 7, true),
    ("UP", 8, true),
    ("NAME", 0, false),
];

const CONSUMER_COLUMNS: [Column; 9] = [
    ("", 15, false),
    ("PID", 8, true),
    ("HELD", 6, true),
    ("ITEM", 10, true),
    ("TRY", 3, true),
    ("FOR", 7, true),
    ("DONE", 9, true),
    ("RATE", 8, true),
    ("FAILED", 6, true),
];

type ToCells = fn(&ClientStatus, &State, Looks) -> Vec<Span<'static>>;

#[expect(clippy::too_many_arguments, reason = "two lists that differ in all of these")]
fn list(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column],
    title: &str,
    clients: &[&ClientStatus],
    state: &State,
    looks: Looks,
    to_cells: ToCells,
) {
    let fitting = usize::from(area.height.saturating_sub(1));
    let first = state.scroll.min(clients.len().saturating_sub(fitting));
    let shown = &clients[first..(first + fitting).min(clients.len())];
    let title = match clients.len() {
        0 => format!("NO {title}"),
        1 => format!("1 {}", title.trim_end_matches('S')),
        all => format!("{all}{} {title}", more(first > 0, first + shown.len() < all, looks)),
    };
    let aligned = |text: Span<'static>, numbers: bool| {
        let alignment = if numbers { Alignment::Right } else { Alignment::Left };
        Cell::from(Line::from(text).alignment(alignment))
    };
    let headings = columns.iter().enumerate().map(|(index, (heading, _, numbers))| {
        let text = if index == 0 { title.clone() } else { (*heading).to_string() };
        aligned(Span::raw(text), *numbers)
    });
    let rows = shown.iter().map(|client| {
        let cells = to_cells(client, state, looks).into_iter().zip(columns);
        Row::new(cells.map(|(text, (_, _, numbers))| aligned(text, *numbers)).collect::<Vec<_>>())
    });
    let widths = columns.iter().map(|(_, width, _)| if *width == 0 { Constraint::Min(4) } else { Constraint::Length(*width) });
    let table = Table::new(rows, widths).header(Row::new(headings.collect::<Vec<_>>())).column_spacing(1);
    frame.buffer_mut().set_style(Rect { height: area.height.min(1), ..area }, looks.heading());
    frame.render_widget(table, area);
}

/// Where there is more than is shown.
fn more(above: bool, below: bool, looks: Looks) -> &'static str {
    match (above, below, looks.style.unicode) {
        (false, false, _) => "",
        (true, true, true) => "↕",
        (true, false, true) => "↑",
        (false, true, true) => "↓",
        (true, true, false) => "^v",
        (true, false, false) => "^",
        (false, true, false) => "v",
    }
}

fn pid(client: &ClientStatus) -> Span<'static> {
    Span::raw(client.pid.map_or_else(|| "?".into(), |pid| pid.to_string()))
}

fn rate(client: &ClientStatus, state: &State) -> Span<'static> {
    Span::raw(state.rate_of(client.number).map_or_else(String::new, words::rate))
}

fn up(client: &ClientStatus) -> Span<'static> {
    Span::raw(words::time(Duration::from_millis(client.connected_ms)))
}

fn producer_row(client: &ClientStatus, state: &State, looks: Looks) -> Vec<Span<'static>> {
    let Work::Producer { name, accepted, parked, waiting, finished } = &client.work else { return Vec::new() };
    let doing = match (finished, waiting) {
        (true, _) => Span::styled("finished", looks.label()),
        (false, true) => Span::styled("waits for room", looks.colour(Color::Yellow)),
        (false, false) => Span::raw("puts"),
    };
    let parked = if *parked > 0 { words::count(*parked) } else { String::new() };
    vec![doing, pid(client), Span::raw(words::count(*accepted)), rate(client, state), Span::raw(parked), up(client), Span::raw(shown(name))]
}

fn consumer_row(client: &ClientStatus, state: &State, looks: Looks) -> Vec<Span<'static>> {
    let Work::Consumer { held, at_hand, waiting, done, failed } = &client.work else { return Vec::new() };
    let doing = match (at_hand, waiting) {
        (Some(_), _) => Span::raw("works"),
        (None, true) => Span::styled("waits for items", looks.label()),
        (None, false) => Span::styled("asks for none", looks.label()),
    };
    let of_item = |figure: Option<String>| Span::raw(figure.unwrap_or_default());
    let retried = at_hand.is_some_and(|at_hand| at_hand.attempt > 1);
    vec![
        doing,
        pid(client),
        Span::raw(words::count(*held)),
        of_item(at_hand.map(|at_hand| at_hand.id.to_string())),
        of_item(at_hand.map(|at_hand| at_hand.attempt.to_string())).style(looks.if_any(u64::from(retried), Color::Yellow)),
        of_item(at_hand.map(|at_hand| words::brief_time(Duration::from_millis(at_hand.for_ms)))),
        Span::raw(words::count(*done)),
        rate(client, state),
        Span::styled(words::count(*failed), looks.if_any(*failed, Color::Yellow)),
    ]
}

/// A name may hold whatever its producer likes, but not move our cursor.
fn shown(name: &str) -> String {
    name.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect()
}

fn keys(state: &State, looks: Looks) -> Line<'_> {
    if state.confirms_stop {
        let words = " Stop? It takes no more items, and ends once all are settled. y: yes, any other key: no ";
        return Line::styled(words, looks.heading());
    }
    if let Some(words) = &state.words {
        return Line::styled(&words[..], looks.title());
    }
    let arrows = if looks.style.unicode { "↑↓" } else { "up, down" };
    let pause = if state.is_paused() { "go on" } else { "pause" };
    let keys = [("q", "quit"), ("p", pause), ("s", "stop"), (arrows, "scroll")];
    Line::from_iter(keys.into_iter().flat_map(|(key, does)| [Span::styled(key, looks.title()), Span::raw(format!(" {does}   "))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::ItemId;
    use common::status::AtHand;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn state(consumers: u64) -> State {
        let mut state = State::new("/run/user/1000/procq/default.sock".into(), 7, Duration::from_secs(1));
        let producer = Work::Producer { name: "0: a\x1b[2Jb".into(), accepted: 12, parked: 3, waiting: true, finished: false };
        let at_hand = Some(AtHand { id: ItemId(5003), attempt: 2, for_ms: 1500 });
        let consumer = |done| Work::Consumer { held: 3, at_hand, waiting: false, done, failed: 1 };
        let client = |number, work| ClientStatus { number, pid: Some(40_000 + number as u32), connected_ms: 61_000, work };
        let clients: Vec<_> = [client(3, producer)].into_iter().chain((4..4 + consumers).map(|n| client(n, consumer(n)))).collect();
        for uptime_ms in [1000, 2000] {
            let status = Status { uptime_ms, accepted: uptime_ms, ready: 5, capacity_items: 10, capacity_bytes: 100, ..Status::default() };
            state.take(status, clients.clone());
        }
        state
    }

    fn screen(columns: u16, rows: u16, state: &State, style: Style) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, state, style)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol().to_string()).collect::<String>().trim_end().to_string();
        (0..rows).map(row).collect()
    }

    const PLAIN: Style = Style { unicode: false, colour: false };

    #[test]
    fn each_client_is_there_with_what_it_does() {
        let rows = screen(80, 24, &state(2), PLAIN);
        let find = |text: &str| rows.iter().find(|row| row.contains(text)).unwrap_or_else(|| panic!("{text:?} is not in {rows:#?}"));
        assert_eq!(find("40003"), "waits for room     40003            12      0/s       3   1m 01s 0: a?[2Jb");
        assert_eq!(find("40004"), "works              40004      3       5003   2    1.5s         4      0/s      1");
        assert!(find("procq").ends_with("/run/user/1000/procq/default.sock"));
        assert!(find("put  ").contains("1.00k/s"));
        assert!(rows.iter().all(|row| row.is_ascii()));
        assert!(rows[23].starts_with("q quit"));
    }

    #[test]
    fn of_many_those_are_shown_that_are_scrolled_to() {
        let mut state = state(100);
        state.scroll = usize::MAX;
        let rows = screen(80, 24, &state, PLAIN);
        assert!(rows.iter().any(|row| row.contains("100^ CONSUMERS")) && rows.iter().any(|row| row.contains("40103")), "{rows:#?}");
    }

    #[test]
    fn a_short_screen_has_keys_and_clients_instead_of_courses() {
        let rows = screen(80, 15, &state(1), PLAIN);
        assert!(rows[14].starts_with("q quit") && rows.iter().any(|row| row.starts_with("works")), "{rows:#?}");
        assert!(screen(80, 10, &state(1), PLAIN)[9].starts_with("q quit"));
    }

    #[test]
    fn no_screen_is_too_small_or_too_large() {
        let mut state = state(30);
        for confirms_stop in [false, true] {
            state.confirms_stop = confirms_stop;
            for (columns, rows) in [(1, 1), (1, 50), (80, 1), (3, 3), (20, 10), (79, 23), (200, 50), (500, 200)] {
                screen(columns, rows, &state, Style { unicode: true, colour: true });
            }
        }
    }
}
