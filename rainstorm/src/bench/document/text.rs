//! The words and tables of the document.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    super::report::{Figure, Part, Report, Target, digits},
    median, typed,
};

/// The file of a plot.
pub fn picture(place: &str, id: &str) -> String {
    format!("{place}-{id}.svg")
}

/// What people have to say about figures that are not as they are to be: by `<place>: <figure>`, or `<figure>` alone.
pub struct Notes(BTreeMap<String, String>);

impl Notes {
    /// Those that `notes.md` has, each under a heading; or the heading that no report has a figure for.
    pub fn read(text: &str, reports: &[(String, Report)]) -> Result<Self, String> {
        let sections = format!("\n{text}");
        let sections = sections.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
        let notes: BTreeMap<_, _> =
            sections.map(|(name, note)| (name.trim().to_owned(), note.trim().to_owned())).collect();
        let named = |name: &str| {
            let figures = |(place, report): &(String, Report)| {
                let mut figures = report.figures.iter();
                figures.any(|figure| figure.name == name || format!("{place}: {}", figure.name) == name)
            };
            reports.iter().any(figures)
        };
        // A note under a name that is misspelt would never be read.
        match notes.keys().find(|name| !named(name)) {
            Some(name) => Err(name.clone()),
            None => Ok(Self(notes)),
        }
    }

    fn about(&self, place: &str, figure: &str) -> Option<&str> {
        let note = self.0.get(&format!("{place}: {figure}")).or_else(|| self.0.get(figure))?;
        (!note.is_empty()).then_some(note)
    }
}

pub const INTRODUCTION: &str = "\
<!-- Written by `rainstorm bench --write docs/performance`; change nothing here. What people have to say stands in
     docs/performance/notes.md and about.md; `rainstorm bench --render docs/performance` puts it in. -->
# Performance

Every figure stands beside a floor (what the machine itself does with the same log or store) or a rival, measured in the
same run, wherever there is one. What is compared is measured in interleaved pairs, one, the other, one, the other, so that
a machine that is slow for a while is slow for both; the figure is the median of the pairs. Where there were several whole
runs, a figure is their median, and what each of them found stands beside it: so far apart may two measurements be of which
nothing has changed. A target that is missed is explained below its table.
";

/// What is said before the table of a part.
fn about(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Capacity => (
            "Capacity",
            "Orders a second from placed to completed, with a fixed number of orders under way all the time: as soon as \
             one ends, the next is placed, so nothing queues up and nothing idles. Floors are log and store alone, given \
             as many records and as large ones, measured in interleaved pairs with it.",
        ),
        Part::Placing => (
            "Placing an order",
            "How long `POST /orders` takes until its answer, when the order is durable. Orders come at their own times, \
             whether or not earlier ones have been answered, so a slow answer isn't hidden by the customers who wait for \
             it. Compared are medians of interleaved pairs.",
        ),
        Part::Journey => (
            "An order's journey",
            "From the answer to the customer through all services into the view, cooking and riding taking no time. \
             Compared are medians of interleaved pairs.",
        ),
        Part::Chain => (
            "Beside calls",
            "The same services, stores and work, calling each other one after the other instead of listening. Both are \
             given the same load in interleaved pairs; the figures are the medians.",
        ),
        Part::Reaction => (
            "Reaction",
            "How soon capacity follows load, and what it takes, beside scaling by processor time. Both are given the same \
             load in interleaved pairs; the figures are the medians.",
        ),
        Part::Replay => (
            "Replay",
            "How fast history is read again: to rebuild a store, to catch up, to audit. Floors are the same records \
             merely read from the log, measured in interleaved pairs.",
        ),
        Part::Start => (
            "Start and memory",
            "From before a process is started until it says that it is ready, and the memory that it keeps resident. \
             Compared are medians of interleaved pairs.",
        ),
        Part::Growth => (
            "Growth",
            "What history, instances and partitions change: the same load again and again, with one thing different. \
             Compared are medians of interleaved pairs.",
        ),
    }
}

const PARTS: [Part; 8] = [
    Part::Capacity,
    Part::Placing,
    Part::Journey,
    Part::Chain,
    Part::Reaction,
    Part::Replay,
    Part::Start,
    Part::Growth,
];

/// One report.
pub fn tell(text: &mut String, folder: &str, place: &str, report: &Report, notes: &Notes) {
    let Report { date, version, command, machine, processors, .. } = report;
    let mut letters = report.place.chars();
    let heading: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let _ = write!(
        text,
        "\n## {heading}\n\n| | |\n|---|---|\n| machine | {processors} processors, {} |\n| date | {date} |\n\
         | version | {version} |\n| command | `{}` |\n",
        cell(machine),
        cell(&typed(command)),
    );
    if let Some(runs) = whole_runs(report) {
        let _ = writeln!(text, "| whole runs | {runs} |");
    }
    if report.quick {
        text.push_str("\n**Measured for seconds only: this shows that it works, not what it does.**\n");
    }
    for part in PARTS {
        let figures: Vec<_> = report.figures.iter().filter(|figure| figure.part == part).collect();
        let plots: Vec<_> = report.plots.iter().filter(|plot| plot.part == part).collect();
        if figures.is_empty() && plots.is_empty() {
            continue;
        }
        let (heading, what) = about(part);
        let _ = write!(text, "\n### {heading}\n\n{what}\n");
        tabulate(text, &figures);
        for figure in &figures {
            let Some(target) = figure.target.filter(|target| !target.is_met_by(figure.value)) else { continue };
            let note = notes.about(place, &figure.name).unwrap_or("**Not explained yet.**");
            let (value, target) = (with(figure.value, &figure.unit), with_target(target, &figure.unit));
            let _ = write!(text, "\n*{}: {value}, to be {target}.* {note}\n", cell(&figure.name));
        }
        for plot in plots {
            let _ = write!(text, "\n![{}]({folder}/{})\n", plot.title, picture(place, &plot.id));
        }
    }
}

/// A table of those columns in which something stands.
fn tabulate(text: &mut String, figures: &[&Figure]) {
    if figures.is_empty() {
        return;
    }
    let head = ["figure", "measured", "floor or rival", "ratio", "target", "met", "whole runs"].map(str::to_owned);
    let rows: Vec<_> = figures.iter().map(|figure| row(figure)).collect();
    let filled: Vec<_> = (0..head.len()).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    let line = |row: &[String; 7]| {
        let cells = filled.iter().map(|column| row[*column].as_str());
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let _ = write!(text, "\n{}|{}\n", line(&head), "---|".repeat(filled.len()));
    text.extend(rows.iter().map(line));
}

fn row(figure: &Figure) -> [String; 7] {
    let Figure { name, value, unit, floor, target, runs, .. } = figure;
    let met = target.map(|target| if target.is_met_by(*value) { "yes" } else { "**no**" });
    let beside = floor.as_ref().map(|floor| format!("{}: {}", cell(&floor.name), with(floor.value, unit)));
    let ratio = floor.as_ref().map(|floor| number(floor.ratio));
    let each = runs.iter().copied().map(number).collect::<Vec<_>>().join(" · ");
    let runs = apart(figure).map(|apart| format!("{each} ({} % apart)", digits(apart)));
    [
        cell(name),
        with(*value, unit),
        beside.unwrap_or_default(),
        ratio.unwrap_or_default(),
        target.map(|target| with_target(target, unit)).unwrap_or_default(),
        met.unwrap_or_default().to_owned(),
        runs.unwrap_or_default(),
    ]
}

/// How far the whole runs were apart, in hundredths of their median.
fn apart(figure: &Figure) -> Option<f64> {
    let (least, most) = figure.runs.iter().fold((f64::INFINITY, 0f64), |(a, b), run| (a.min(*run), b.max(*run)));
    (figure.runs.len() > 1 && figure.value > 0.0).then(|| (most - least) / figure.value * 100.0)
}

/// How many there were, and how far they were apart altogether.
fn whole_runs(report: &Report) -> Option<String> {
    let count = report.figures.iter().map(|figure| figure.runs.len()).max().filter(|count| *count > 1)?;
    let apart: Vec<_> = report.figures.iter().filter_map(|figure| Some((apart(figure)?, figure))).collect();
    let (most, figure) = apart.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let middle = digits(median(apart.iter().map(|(apart, _)| *apart)));
    Some(format!(
        "{count}; their figures were {middle} % apart at the median, {} % at most ({})",
        digits(*most),
        cell(&figure.name)
    ))
}

fn with(value: f64, unit: &str) -> String {
    format!("{} {}", number(value), cell(unit)).trim_end().to_owned()
}

fn with_target(target: Target, unit: &str) -> String {
    match target {
        Target::AtLeast(least) => format!("at least {}", with(least, unit)),
        Target::AtMost(most) => format!("at most {}", with(most, unit)),
    }
}

/// Three digits that mean something, and large numbers in groups of three.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1000.0 {
        return format!("{value}");
    }
    if value.abs() < 1.0 {
        // As many places as it takes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 3 and some hundred")]
        let places = (2.0 - value.abs().log10().floor()).clamp(2.0, 12.0) as usize;
        return format!("{value:.places$}");
    }
    let text = digits(value);
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |text| ("-", text));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or_else(|| format!("{sign}{grouped}"), |fraction| format!("{sign}{grouped}.{fraction}"))
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
