//! What a bench has found, for people and as JSON.

use std::fmt;

use serde::Serialize;

/// Something measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What the machine itself does, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    pub name: &'static str,
    pub value: f64,
    /// Of the figure to this.
    pub ratio: f64,
}

impl Figure {
    pub fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit, floor: None }
    }

    #[must_use]
    pub fn beside(self, name: &'static str, value: f64) -> Self {
        Self { floor: Some(Floor { name, value, ratio: self.value / value }), ..self }
    }
}

/// All of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// RFC 3339.
    pub date: String,
    pub version: &'static str,
    /// Log and stores.
    pub place: &'static str,
    pub processors: usize,
    pub quick: bool,
    pub figures: Vec<Figure>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, version, place, processors, .. } = self;
        write!(f, "rainstorm {version}, {place}, {processors} processors, {date}")?;
        for Figure { name, value, unit, floor } in &self.figures {
            write!(f, "\n  {name:<44} {:>10} {unit:<12}", digits(*value))?;
            if let Some(Floor { name, value, ratio }) = floor {
                write!(f, " {:>5.1} % of {} {unit}, {name}", ratio * 100.0, digits(*value))?;
            }
        }
        if self.quick {
            write!(f, "\n  (measured for seconds only: this shows that it works, not what it does)")?;
        }
        Ok(())
    }
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
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
    fn a_figure_stands_beside_its_floor() {
        let figures = vec![Figure::new("orders", 250.0, "orders/s").beside("the log alone", 1000.0)];
        let (date, version, place) = ("2026-01-01T00:00:00Z".to_owned(), "0.1.0", "embedded");
        let report = Report { date, version, place, processors: 2, quick: true, figures };
        let text = report.to_string();
        assert!(text.contains(" 25.0 % of 1000 orders/s, the log alone"), "{text}");
        assert!(text.contains("for seconds only"), "{text}");
        assert_eq!(serde_json::to_value(&report).unwrap()["figures"][0]["floor"]["ratio"], 0.25);
    }

    #[test]
    fn digits_that_mean_nothing_are_left_out() {
        assert_eq!([1234.56, 99.94, 9.999, 0.123].map(digits), ["1235", "99.9", "10.00", "0.12"]);
    }
}
