//! What a bench has found, for people and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a figure or a plot tells about; each has a part of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// How many orders a second.
    Capacity,
    /// How long customers wait for the answer to an order.
    Placing,
    /// How long an order takes through the services and into the view.
    Journey,
    /// Beside the same services calling each other.
    Chain,
    /// How soon capacity follows load, and what it costs.
    Reaction,
    /// Rebuilding, catching up, auditing.
    Replay,
    /// Start and memory.
    Start,
    /// What history, instances and partitions change.
    Growth,
}

/// Something measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub part: Part,
    pub name: String,
    /// The median, where it was measured more than once.
    pub value: f64,
    pub unit: String,
    /// What the machine itself does, or somebody else, measured in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What each whole run found, if there was more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    pub name: String,
    /// In the figure's unit.
    pub value: f64,
    /// Of the figure to this.
    pub ratio: f64,
}

/// What the figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// Something measured again and again, to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    pub part: Part,
    /// Of its file.
    pub id: String,
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    pub name: String,
    pub unit: String,
    #[serde(default)]
    pub logarithmic: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    /// Drawn as a model, not as something measured.
    #[serde(default)]
    pub model: bool,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
}

impl Figure {
    pub fn new(part: Part, name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { part, name: name.into(), value, unit: unit.into(), floor: None, target: None, runs: Vec::new() }
    }

    #[must_use]
    pub fn beside(self, name: impl Into<String>, value: f64) -> Self {
        Self { floor: Some(Floor { name: name.into(), value, ratio: self.value / value }), ..self }
    }

    #[must_use]
    pub fn aiming_at(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }
}

/// All of one bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// RFC 3339.
    pub date: String,
    pub version: String,
    /// Log and stores, for people.
    pub place: String,
    /// What was typed.
    pub command: String,
    /// Processor and system.
    pub machine: String,
    pub processors: usize,
    pub quick: bool,
    pub figures: Vec<Figure>,
    #[serde(default)]
    pub plots: Vec<Plot>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, version, place, machine, processors, .. } = self;
        write!(f, "rainstorm {version}, {place}, {date}, {processors} processors: {machine}")?;
        for Figure { name, value, unit, floor, target, .. } in &self.figures {
            write!(f, "\n  {name:<52} {:>10} {unit:<10}", digits(*value))?;
            if let Some(target) = target {
                write!(f, " {}", if target.is_met_by(*value) { "as it is to be;" } else { "NOT as it is to be;" })?;
            }
            if let Some(Floor { name, value, ratio }) = floor {
                write!(f, " {:>5.2} times the {} {unit} of {name}", ratio, digits(*value))?;
            }
        }
        if self.quick {
            write!(f, "\n  (measured for seconds only: this shows that it works, not what it does)")?;
        }
        Ok(())
    }
}

/// Three digits that mean something.
pub fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_beside_its_floor_and_its_target() {
        let orders = Figure::new(Part::Capacity, "orders", 250.0, "orders/s").beside("the log alone", 1000.0);
        let report = Report {
            date: "2026-01-01T00:00:00Z".to_owned(),
            version: "0.1.0".to_owned(),
            place: "embedded".to_owned(),
            command: "rainstorm bench".to_owned(),
            machine: "a machine".to_owned(),
            processors: 2,
            quick: true,
            figures: vec![orders.aiming_at(Target::AtLeast(300.0))],
            plots: Vec::new(),
        };
        let text = report.to_string();
        assert!(text.contains("NOT as it is to be;  0.25 times the 1000 orders/s of the log alone"), "{text}");
        assert!(text.contains("for seconds only"), "{text}");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn digits_that_mean_nothing_are_left_out() {
        assert_eq!([1234.56, 99.94, 9.999, 0.123].map(digits), ["1235", "99.9", "10.00", "0.12"]);
    }
}
