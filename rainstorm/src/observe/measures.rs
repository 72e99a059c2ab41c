//! What the programs say they have measured, read from their `/metrics`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// How far back the time of placing an order is told of.
const LATELY: Duration = Duration::from_secs(5);

/// A line of the exposition: a name, its labels, its value.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    name: &'a str,
    labels: HashMap<&'a str, &'a str>,
    value: f64,
}

/// Reads a line; `None` if it is a comment, or none of ours (whose label values have no quotes in them).
fn read(line: &str) -> Option<Line<'_>> {
    let (what, value) = line.trim().rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = what.split_once('{').map_or((what, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
    let labels = labels.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\"")).collect();
    Some(Line { name, labels, value: value.parse().ok()? })
}

/// The newest of everything.
#[derive(Debug, Default)]
pub struct Measures {
    /// By name, service and what else tells them apart.
    values: HashMap<(String, String, String), f64>,
    /// How many answers to `POST /orders` took at most so long, each time somebody looked.
    placing: VecDeque<(Instant, BTreeMap<u64, f64>)>,
}

impl Measures {
    /// Takes in what all programs say now.
    pub fn take(&mut self, texts: &[String], at: Instant) {
        self.values.clear();
        let mut placing = BTreeMap::new();
        for line in texts.iter().flat_map(|text| text.lines()).filter_map(read) {
            let label = |name: &str| line.labels.get(name).copied().unwrap_or_default();
            match line.name {
                "rainstorm_http_request_duration_seconds_bucket" => {
                    if (label("method"), label("route")) == ("POST", "/orders") {
                        // Bounds are whole microseconds; the last is +Inf.
                        let bound = label("le").parse::<f64>().map_or(u64::MAX, |le| (le * 1e6) as u64);
                        *placing.entry(bound).or_default() += line.value;
                    }
                }
                name => {
                    let other = ["phase", "state", "status"].into_iter().map(label).find(|it| !it.is_empty());
                    let key = (name.to_owned(), label("service").to_owned(), other.unwrap_or_default().to_owned());
                    *self.values.entry(key).or_default() += line.value;
                }
            }
        }
        self.placing.push_back((at, placing));
        while self.placing.len() > 2 && at.duration_since(self.placing[1].0) >= LATELY {
            self.placing.pop_front();
        }
    }

    /// The value of `rainstorm_{name}` of a service.
    pub fn of(&self, name: &str, service: &str) -> Option<f64> {
        self.which(name, service, "")
    }

    /// The value of `rainstorm_{name}` of a service that has this phase, state or status.
    pub fn which(&self, name: &str, service: &str, which: &str) -> Option<f64> {
        self.values.get(&(format!("rainstorm_{name}"), service.to_owned(), which.to_owned())).copied()
    }

    /// How a service started: phases with the milliseconds they came after.
    pub fn phases(&self, service: &str) -> Vec<(String, f64)> {
        let ours =
            self.values.iter().filter(|((name, of, _), _)| name == "rainstorm_start_duration_seconds" && of == service);
        let mut phases: Vec<_> =
            ours.map(|((.., phase), seconds)| (phase.clone(), (seconds * 1e5).round() / 100.0)).collect();
        phases.sort_by(|a, b| a.1.total_cmp(&b.1));
        phases
    }

    /// The time below which a share of the answers to `POST /orders` lay lately, in milliseconds.
    pub fn placing(&self, share: f64) -> Option<f64> {
        let (now, before) = (&self.placing.back()?.1, &self.placing.front()?.1);
        let since = |bound: &u64, count: &f64| count - before.get(bound).unwrap_or(&0.0);
        let counts: Vec<(u64, f64)> = now.iter().map(|(bound, count)| (*bound, since(bound, count))).collect();
        let all = counts.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
        let wanted = all * share;
        let place = counts.iter().position(|(_, count)| *count >= wanted)?;
        let (bound, count) = counts[place];
        let (low, below) = place.checked_sub(1).map_or((0, 0.0), |place| counts[place]);
        if bound == u64::MAX {
            return Some(low as f64 / 1000.0);
        }
        // Between two bounds all are as likely.
        let part = if count > below { (wanted - below) / (count - below) } else { 1.0 };
        Some((low as f64 + (bound - low) as f64 * part) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(fast: u64, slow: u64) -> String {
        let bucket = |le: &str, count| {
            format!(
                "rainstorm_http_request_duration_seconds_bucket{{method=\"POST\",route=\"/orders\",status=\"201\",le=\"{le}\",service=\"order\"}} {count}\n"
            )
        };
        [bucket("0.01", fast), bucket("0.1", fast + slow), bucket("+Inf", fast + slow)].concat()
    }

    #[test]
    fn a_line_is_read_with_its_labels_and_a_comment_is_none() {
        let line = read("a_total{x=\"1, 2\",y=\"b\"} 3.5").unwrap();
        assert_eq!((line.name, line.labels["x"], line.labels["y"], line.value), ("a_total", "1, 2", "b", 3.5));
        assert_eq!(read("b 1").map(|line| line.labels.len()), Some(0));
        assert_eq!(read("# HELP a_total Something."), None);
    }

    #[test]
    fn placing_is_told_of_what_was_answered_since_it_was_looked_before() {
        let mut measures = Measures::default();
        let begun = Instant::now();
        measures.take(&[answered(1_000, 1_000)], begun);
        assert_eq!(measures.placing(0.5), None, "nothing was answered since");
        measures.take(&[answered(1_098, 1_002)], begun + Duration::from_secs(1));
        assert!(measures.placing(0.5).is_some_and(|ms| ms < 10.0));
        assert!(measures.placing(0.99).is_some_and(|ms| ms > 10.0 && ms <= 100.0));
    }

    #[test]
    fn values_are_told_apart_by_service_and_state() {
        let mut measures = Measures::default();
        let text = "rainstorm_drivers{state=\"free\",service=\"query\"} 7\nrainstorm_workers_awake{service=\"order\"} 2\n\
                    rainstorm_start_duration_seconds{phase=\"ready\",service=\"order\"} 0.0204\n";
        measures.take(&[text.to_owned()], Instant::now());
        assert_eq!(measures.which("drivers", "query", "free"), Some(7.0));
        assert_eq!(measures.of("workers_awake", "order"), Some(2.0));
        assert_eq!(measures.of("workers_awake", "query"), None);
        assert_eq!(measures.phases("order"), [("ready".to_owned(), 20.4)]);
    }
}
