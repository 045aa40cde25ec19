//! The rates as one drawing: a bar for each contestant and case, on a logarithmic scale.

use std::fmt::Write;

use crate::report::{Group, Report, Unit, short};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 40.0;

/// Seen on white and on black alike; procq's is the strong one.
const COLOURS: [&str; 10] = ["#e4572e", "#8a8f98", "#4c8fd6", "#3fa796", "#b58bd8", "#c9a227", "#7a9e3f", "#d6749b", "#a9744f", "#f0a58f"];

/// An SVG that stands by itself.
pub fn draw(report: &Report) -> String {
    let groups: Vec<&Group> = report.peers.iter().filter(|group| group.unit == Unit::ItemsPerSecond).collect();
    let mut names: Vec<&str> = Vec::new();
    for row in groups.iter().flat_map(|group| &group.rows) {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let scale = Scale::of(&groups);
    let mut svg = String::new();
    open(&mut svg, report);
    legend(&mut svg, &names);
    scale.draw(&mut svg);
    let group_width = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    for (at, group) in groups.iter().enumerate() {
        let from = LEFT + at as f64 * group_width;
        bars(&mut svg, group, &names, &scale, from, group_width);
        text(&mut svg, "middle", from + group_width / 2.0, HEIGHT - BOTTOM + 20.0, &group.title);
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(svg: &mut String, report: &Report) {
    // Writing to a String cannot fail; so in all that follows.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="12">"#
    );
    let _ = writeln!(
        svg,
        "<style>text {{ fill: #333 }} .figure {{ font-size: 9px }} line {{ stroke: #8886 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>"
    );
    let _ = writeln!(svg, "<title>Items per second by size of item</title>");
    text(svg, "start", 8.0, 20.0, &format!("Items per second by size of item, logarithmic; {}", report.machine));
}

fn legend(svg: &mut String, names: &[&str]) {
    let (mut x, mut y) = (8.0, 44.0);
    for (name, colour) in names.iter().zip(COLOURS) {
        let width = 34.0 + 6.6 * name.chars().count() as f64;
        if x + width > WIDTH {
            (x, y) = (8.0, y + 20.0);
        }
        let _ = writeln!(svg, r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/>"#, y - 10.0);
        text(svg, "start", x + 18.0, y, name);
        x += width;
    }
}

fn bars(svg: &mut String, group: &Group, names: &[&str], scale: &Scale, from: f64, width: f64) {
    let bar = (width - 16.0) / group.rows.len() as f64;
    for (at, row) in group.rows.iter().enumerate() {
        let colour = names.iter().position(|name| *name == row.name).map_or(COLOURS[0], |at| COLOURS[at % COLOURS.len()]);
        let (x, y) = (from + 8.0 + at as f64 * bar, scale.y(row.sample.median()));
        let (height, bar) = (HEIGHT - BOTTOM - y, bar - 2.0);
        let figure = short(row.sample.median());
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{bar:.1}" height="{height:.1}" fill="{colour}"><title>{}: {figure}</title></rect>"#,
            row.name
        );
        // Upright, since a bar is narrower than its figure.
        let (x, y) = (x + bar / 2.0 + 3.0, y - 4.0);
        let _ = writeln!(svg, r#"<text class="figure" transform="translate({x:.1} {y:.1}) rotate(-90)">{figure}</text>"#);
    }
}

fn text(svg: &mut String, anchor: &str, x: f64, y: f64, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, r#"<text text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
}

/// Whole powers of ten, from the one below the smallest figure to one that leaves room above the largest.
struct Scale {
    from: i32,
    to: i32,
}

impl Scale {
    fn of(groups: &[&Group]) -> Scale {
        let medians = || groups.iter().flat_map(|group| &group.rows).map(|row| row.sample.median().max(1.0).log10());
        let from = medians().fold(f64::INFINITY, f64::min).min(8.0).floor() as i32;
        let to = (medians().fold(0.0, f64::max) + 0.3).ceil() as i32;
        Scale { from, to: to.max(from + 1) }
    }

    fn y(&self, figure: f64) -> f64 {
        let share = (figure.max(1.0).log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        HEIGHT - BOTTOM - share.max(0.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn draw(&self, svg: &mut String) {
        for power in self.from..=self.to {
            let figure = 10f64.powi(power);
            let y = self.y(figure);
            let _ = writeln!(svg, r#"<line x1="{LEFT}" y1="{y:.1}" x2="{}" y2="{y:.1}"/>"#, WIDTH - RIGHT);
            let label = match power {
                6.. => format!("{} M", 10f64.powi(power - 6)),
                3.. => format!("{} k", 10f64.powi(power - 3)),
                _ => figure.to_string(),
            };
            text(svg, "end", LEFT - 6.0, y + 4.0, &label);
        }
    }
}
