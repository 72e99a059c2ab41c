//! What more orders than one machine can take would need, reckoned from what the bench has found. A column whose
//! constants nobody has measured is left out. What is assumed and not measured stands here, once, and is told.

use std::fmt::Write;

use super::{super::report::Report, text::number, typed};

/// Where the table begins and ends in `scale.md`.
pub const BEGIN: &str = "<!-- bench:begin -->";
pub const END: &str = "<!-- bench:end -->";

/// Steps of growth: what it is called, orders a day in all, and the regions that share them evenly.
const STEPS: [(&str, f64, f64); 5] = [
    ("a kitchen", 10.0, 1.0),
    ("a town", 1_000.0, 1.0),
    ("a city", 100_000.0, 1.0),
    ("a country", 1_000_000.0, 1.0),
    ("a planet", 100_000_000.0, 10.0),
];
const SECONDS_A_DAY: f64 = 86_400.0;
const DAYS_A_YEAR: f64 = 365.0;
/// The fullest second of a day, in times its mean: it rains at dinner time.
const PEAK: f64 = 10.0;
/// How full a processor or a store may be at the peak.
const FULL: f64 = 0.6;
/// Partitions of the topics that were measured, which is also what they have by default.
const PARTITIONS: f64 = 12.0;
/// Kafka keeps each record on so many brokers, PostgreSQL each row on so many servers.
const BROKERS: f64 = 3.0;
const SERVERS: f64 = 2.0;
/// Cores of brokers and database servers in each region that are there whether or not anybody orders.
const ALWAYS: f64 = 3.0 * 2.0 + 2.0 * 2.0;
/// Prices in dollars: a core for an hour, a GB of disk for a month.
const CORE_HOUR: f64 = 0.04;
const GB_MONTH: f64 = 0.10;
const MILLION: f64 = 1e6;
const BYTES_A_GB: f64 = 1e9;

/// What was measured.
struct Constants {
    completed: Option<f64>,
    records: Option<f64>,
    /// Of Rainstorm's own processes, in milliseconds.
    processor: Option<f64>,
    log: Option<f64>,
    stores: Option<f64>,
    transactions: Option<f64>,
}

impl Constants {
    fn of(report: &Report) -> Self {
        let figure = |name: &str| report.figures.iter().find(|figure| figure.name == name);
        let value = |name: &str| figure(name).map(|figure| figure.value).filter(|value| *value > 0.0);
        Self {
            completed: value("orders from placed to completed"),
            records: value("records on the log for an order"),
            processor: value("processor time for an order"),
            log: value("bytes on the log for an order"),
            stores: value("bytes in the stores for an order"),
            transactions: figure("events stored").and_then(|figure| Some(figure.floor.as_ref()?.value)),
        }
    }

    /// Core hours and GB at their prices: so much for a million orders, and its three parts.
    fn prices(&self) -> [Option<f64>; 3] {
        let kept_for_a_year = |bytes: f64, copies: f64| bytes * MILLION / BYTES_A_GB * copies * 12.0 * GB_MONTH;
        [
            self.processor.map(|ms| ms * MILLION / 3_600_000.0 / FULL * CORE_HOUR),
            self.log.map(|bytes| kept_for_a_year(bytes, BROKERS)),
            self.stores.map(|bytes| kept_for_a_year(bytes, SERVERS)),
        ]
    }
}

/// `text` with the table between the marks; `None` if they aren't there.
pub fn inserted(text: &str, reports: &[(String, Report)]) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    // A deployment of more than one machine has Kafka and PostgreSQL.
    let report = reports.iter().find(|(place, _)| place == "servers").or_else(|| reports.first());
    let table =
        report.map_or_else(|| "Nothing has been measured yet.\n".to_owned(), |(place, report)| tables(place, report));
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// What a column is called, how it is reckoned (unless it is given), and its value for orders a day and regions.
type Column = (&'static str, Option<String>, Box<dyn Fn(f64, f64) -> f64>);

fn tables(place: &str, report: &Report) -> String {
    let constants = Constants::of(report);
    let mut text = format!(
        "Measured on {} ({}, [`{place}.json`](performance/{place}.json), `{}`), so one machine is all that the constants \
         know.\n",
        report.machine,
        report.date,
        typed(&report.command)
    );
    if report.quick {
        text.push_str("**It was measured for seconds only, which shows that it works and not what it does.**\n");
    }
    let columns = columns(&constants);
    text.push_str("\n| column | how it is reckoned |\n|---|---|\n");
    for (name, formula, _) in &columns {
        if let Some(formula) = formula {
            let _ = writeln!(text, "| {name} | {formula} |");
        }
    }
    let names: Vec<_> = columns.iter().map(|(name, ..)| *name).collect();
    let _ = write!(text, "\n| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (name, day, regions) in STEPS {
        let cells = columns.iter().map(|(.., reckon)| rough(reckon(day, regions)));
        let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text.push_str(&costs(&constants));
    text
}

/// The columns whose constants are known.
fn columns(constants: &Constants) -> Vec<Column> {
    let peak = |day: f64| day / SECONDS_A_DAY * PEAK;
    let mut columns: Vec<Column> = vec![("orders a day", None, Box::new(|day, _| day))];
    let mut add = |name, formula, reckon: Box<dyn Fn(f64, f64) -> f64>| columns.push((name, Some(formula), reckon));
    add("regions", "assumed; they share the orders evenly".to_owned(), Box::new(|_, regions| regions));
    add("orders/s at peak", format!("orders a day ÷ 86,400 × {PEAK}"), Box::new(move |day, _| peak(day)));
    if let Some(records) = constants.records {
        let formula = format!("orders/s × {}", number(records));
        add("records/s", formula, Box::new(move |day, _| peak(day) * records));
    }
    if let Some(completed) = constants.completed {
        let formula = format!(
            "of each topic in each region: orders/s ÷ ({} measured ÷ {PARTITIONS}) ÷ {FULL}, and at least {PARTITIONS}; \
             the partitions were not what bounded that measurement, so fewer may do",
            number(completed)
        );
        let one = completed / PARTITIONS * FULL;
        add("partitions", formula, Box::new(move |day, regions| (peak(day) / regions / one).ceil().max(PARTITIONS)));
    }
    if let Some(ms) = constants.processor {
        let formula = format!(
            "of services and bridge: orders/s × {} ms ÷ {FULL}; those of Kafka and PostgreSQL come on top",
            number(ms)
        );
        add("cores", formula, Box::new(move |day, _| (peak(day) * ms / 1000.0 / FULL).max(0.01)));
    }
    if let (Some(records), Some(transactions)) = (constants.records, constants.transactions) {
        let formula = format!(
            "of the view, which keeps every record, in each region: records/s ÷ {} transactions/s of one store alone ÷ \
             {FULL}; what it folds in one batch shares a transaction, what it writes for a record is more than an event",
            number(transactions)
        );
        let one = transactions * FULL;
        add("databases", formula, Box::new(move |day, regions| (peak(day) * records / regions / one).ceil()));
    }
    if let Some(bytes) = constants.log {
        let formula = format!("orders × {} bytes × {BROKERS} brokers", number(bytes));
        let year = bytes * DAYS_A_YEAR * BROKERS / BYTES_A_GB;
        add("GB on the log a year", formula, Box::new(move |day, _| day * year));
    }
    if let Some(bytes) = constants.stores {
        let formula = format!("orders × {} bytes × {SERVERS} servers", number(bytes));
        let year = bytes * DAYS_A_YEAR * SERVERS / BYTES_A_GB;
        add("GB in the stores a year", formula, Box::new(move |day, _| day * year));
    }
    let prices = constants.prices();
    if prices.iter().any(Option::is_some) {
        let formula = format!(
            "the sum below, and {ALWAYS} cores in each region that are there day and night (three brokers and two database \
             servers with two cores each)"
        );
        let sum: f64 = prices.into_iter().flatten().sum();
        let always = move |day: f64, regions: f64| ALWAYS * regions * 24.0 * CORE_HOUR / day * MILLION;
        add("$ for a million orders", formula, Box::new(move |day, regions| sum + always(day, regions)));
    }
    columns
}

/// What a million orders cost, part by part.
fn costs(constants: &Constants) -> String {
    let what = [
        format!("processor: time ÷ {FULL}, at ${CORE_HOUR} for a core and an hour"),
        format!("log: a year on {BROKERS} brokers, at ${GB_MONTH:.2} for a GB and a month"),
        format!("stores: a year on {SERVERS} servers, at ${GB_MONTH:.2} for a GB and a month"),
    ];
    let known: Vec<_> =
        what.into_iter().zip(constants.prices()).filter_map(|(what, price)| Some((what, price?))).collect();
    if known.is_empty() {
        return String::new();
    }
    let mut text = "\n| a million orders | $ |\n|---|---|\n".to_owned();
    for (what, price) in known {
        let _ = writeln!(text, "| {what} | {} |", rough(price));
    }
    text
}

/// Two digits: more would promise more than anybody knows.
fn rough(value: f64) -> String {
    if value <= 0.0 {
        return number(value);
    }
    let exponent = value.log10().floor() - 1.0;
    if exponent >= 0.0 {
        let unit = 10f64.powf(exponent);
        return number((value / unit).round() * unit);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and some hundred")]
    let places = -exponent as usize;
    format!("{value:.places$}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::report::{Figure, Part},
        *,
    };

    const TEXT: &str = "before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n";

    fn report(figures: &[(&str, f64)]) -> Report {
        let figures = figures.iter().map(|(name, value)| Figure::new(Part::Capacity, *name, *value, ""));
        Report {
            date: "2026-01-01T00:00:00Z".to_owned(),
            version: "0.1.0".to_owned(),
            place: "somewhere".to_owned(),
            command: "rainstorm bench".to_owned(),
            machine: "a machine".to_owned(),
            processors: 2,
            quick: false,
            figures: figures.collect(),
            plots: Vec::new(),
        }
    }

    fn inserted_for(reports: &[(&str, Report)]) -> String {
        let reports: Vec<_> = reports.iter().map(|(place, report)| ((*place).to_owned(), report.clone())).collect();
        inserted(TEXT, &reports).expect("marks")
    }

    #[test]
    fn only_what_stands_between_the_marks_changes_and_again_the_same_comes_out() {
        let reports = [("embedded".to_owned(), report(&[("processor time for an order", 6.0)]))];
        let once = inserted(TEXT, &reports).unwrap();
        assert!(once.starts_with("before\n<!-- bench:begin -->\n") && once.ends_with("<!-- bench:end -->\nafter\n"));
        assert!(!once.contains("old"), "{once}");
        assert_eq!(inserted(&once, &reports).unwrap(), once);
        assert_eq!(inserted("no marks", &reports), None);
    }

    #[test]
    fn a_column_without_a_constant_is_left_out() {
        let text = inserted_for(&[("servers", report(&[("processor time for an order", 6.0)]))]);
        // A million orders a day: 116 a second at the peak, 6 ms each, on cores that are three fifths full.
        assert!(
            text.contains("| | orders a day | regions | orders/s at peak | cores | $ for a million orders |\n"),
            "{text}"
        );
        assert!(text.contains("| a country | 1,000,000 | 1 | 120 | 1.2 |"), "{text}");
        assert!(!text.contains("partitions |") && !text.contains("GB"), "{text}");
        let text = inserted_for(&[("servers", report(&[("bytes on the log for an order", 10_000.0)]))]);
        // Three copies of 10 kB, 365 million times.
        assert!(text.contains("GB on the log a year") && text.contains("| 11,000 |"), "{text}");
        assert!(!text.contains("cores |") && !text.contains("stores"), "{text}");
        assert!(inserted_for(&[]).contains("Nothing has been measured yet."));
    }

    #[test]
    fn two_digits_are_promised() {
        let values = [10.0, 0.001_157, 1.157, 5.0, 96.5, 1234.0, 1_095_000.0, 0.0];
        assert_eq!(values.map(rough), ["10", "0.0012", "1.2", "5", "97", "1,200", "1,100,000", "0"]);
    }

    #[test]
    fn servers_count_for_more_than_one_process() {
        let time = |ms| report(&[("processor time for an order", ms)]);
        let text = inserted_for(&[("embedded", time(1.0)), ("servers", time(9.0))]);
        assert!(text.contains("orders/s × 9 ms") && text.contains("performance/servers.json"), "{text}");
    }
}
