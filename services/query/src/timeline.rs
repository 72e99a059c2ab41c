//! An order's timeline: which event caused which, and how long each step took.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// One event in the story of an order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Step {
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub source: String,
    /// The stream it belongs to: the order's, or a driver's.
    pub subject: String,
    pub sequence: i64,
    pub time: String,
    pub causation_id: String,
    /// From what caused it to this; null if that is no event of this story.
    pub latency_ms: Option<f64>,
}

/// Puts the steps in the order of their times, at the same time what caused before what it caused and a stream in its
/// own order, and says how long each took.
#[must_use]
pub fn tell(mut steps: Vec<Step>) -> Vec<Step> {
    let times: HashMap<String, Timestamp> =
        steps.iter().filter_map(|step| Some((step.id.clone(), step.time.parse().ok()?))).collect();
    for step in &mut steps {
        if let (Some(cause), Some(own)) = (times.get(&step.causation_id), times.get(&step.id)) {
            step.latency_ms = Some((own.duration_since(*cause).as_secs_f64() * 1_000_000.0).round() / 1000.0);
        }
    }
    steps.sort_by(|a, b| (&a.source, &a.subject, a.sequence).cmp(&(&b.source, &b.subject, b.sequence)));
    let ranks = ranks(&steps);
    let mut ranked: Vec<_> = ranks.into_iter().zip(steps).collect();
    ranked.sort_by(|(a_rank, a), (b_rank, b)| (&a.time, a_rank).cmp(&(&b.time, b_rank)));
    ranked.into_iter().map(|(_, step)| step).collect()
}

/// For each of the steps, which are sorted by stream and sequence, a number above its cause's and its predecessor's.
fn ranks(steps: &[Step]) -> Vec<usize> {
    let places: HashMap<&str, usize> =
        steps.iter().enumerate().map(|(place, step)| (step.id.as_str(), place)).collect();
    let before = |place: usize| {
        let step = &steps[place];
        let same_stream = |earlier: &Step| (&earlier.source, &earlier.subject) == (&step.source, &step.subject);
        let predecessor = place.checked_sub(1).filter(|earlier| same_stream(&steps[*earlier]));
        places.get(step.causation_id.as_str()).copied().into_iter().chain(predecessor).collect::<Vec<_>>()
    };
    let before: Vec<Vec<usize>> = (0..steps.len()).map(before).collect();
    let mut ranks = vec![0; steps.len()];
    // No chain of causes is longer than the story; a circle, which nobody should publish, ends here too.
    for _ in 0..steps.len() {
        let next: Vec<usize> =
            before.iter().map(|before| before.iter().map(|place| ranks[*place] + 1).max().unwrap_or(0)).collect();
        if next == ranks {
            break;
        }
        ranks = next;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(source: &str, sequence: i64, time: &str, causation_id: &str) -> Step {
        Step {
            id: format!("{source}{sequence}"),
            event_type: String::new(),
            source: source.to_owned(),
            subject: "an order".to_owned(),
            sequence,
            time: time.to_owned(),
            causation_id: causation_id.to_owned(),
            latency_ms: None,
        }
    }

    fn told(steps: Vec<Step>) -> Vec<(String, Option<f64>)> {
        tell(steps).into_iter().map(|step| (step.id, step.latency_ms)).collect()
    }

    #[test]
    fn at_the_same_time_a_cause_comes_before_its_effect_and_a_stream_in_its_order() {
        let (now, later) = ("2026-11-24T09:00:00.000000Z", "2026-11-24T09:00:00.001500Z");
        let steps = vec![
            step("b", 1, later, "c1"),
            step("a", 2, now, "command"),
            step("a", 1, now, "b9"),
            step("b", 9, now, "c1"),
            step("c", 1, now, "command"),
        ];
        let expected = [("c1", None), ("b9", Some(0.0)), ("a1", Some(0.0)), ("a2", None), ("b1", Some(1.5))];
        assert_eq!(told(steps), expected.map(|(id, latency)| (id.to_owned(), latency)));
    }

    #[test]
    fn a_circle_of_causes_and_a_time_that_is_none_are_told_nevertheless() {
        let steps = vec![step("a", 1, "soon", "b1"), step("b", 1, "soon", "a1")];
        assert_eq!(told(steps).len(), 2);
        assert_eq!(told(vec![]), []);
    }
}
