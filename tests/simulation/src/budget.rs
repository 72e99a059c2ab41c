//! What an order may cost, and how what it does cost differs from that. Whatever is asked of the outside is held to the
//! last statement; memory may differ by a little, as compilers and libraries move it.

use std::{collections::BTreeMap, fmt};

use crate::meter::Counts;

/// By kind and name, so many per order.
pub type Figures = BTreeMap<String, BTreeMap<String, f64>>;

/// By how orders come, what each of them costs.
pub type Budget = BTreeMap<String, Figures>;

const ALLOCATIONS: &str = "allocations";
const BYTES: &str = "bytes allocated";

/// How far memory may differ, as a part of what it was. An order has thirteen events, and one allocation more for each
/// must show among the thousand that their records take.
const TOLERANCE: f64 = 0.005;

/// Where little is allocated, it may differ by so much.
fn least_tolerance(kind: &str) -> Option<f64> {
    match kind {
        ALLOCATIONS => Some(2.0),
        BYTES => Some(256.0),
        _ => None,
    }
}

/// What each of so many orders costs; `places`: also what memory was taken for which question.
#[must_use]
pub fn figures(counts: &Counts, orders: u64, places: bool) -> Figures {
    // Two places, so that a file shows what differs; a hundred orders divide without a rest.
    let each = |number: u64| (number as f64 * 100.0 / orders as f64).round() / 100.0;
    let asked = counts.asked.iter().map(|(kind, names)| {
        let names = names.iter().map(|(name, number)| (name.clone(), each(*number)));
        ((*kind).to_owned(), names.collect())
    });
    let mut figures: Figures = asked.collect();
    let sum = counts.memory.values().fold(crate::meter::Memory::default(), |sum, memory| sum + *memory);
    let all = [("all".to_owned(), sum)];
    let parts = counts.memory.iter().filter(|_| places).map(|(place, memory)| (format!("for: {place}"), *memory));
    for (place, memory) in all.into_iter().chain(parts) {
        figures.entry(ALLOCATIONS.to_owned()).or_default().insert(place.clone(), each(memory.allocations));
        figures.entry(BYTES.to_owned()).or_default().insert(place, each(memory.bytes));
    }
    figures
}

/// A figure that isn't what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `calm, statements, order: select events`.
    pub what: String,
    pub before: f64,
    pub after: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, before, after } = self;
        let change =
            if *before == 0.0 { "new".to_owned() } else { format!("{:+.1} %", (after / before - 1.0) * 100.0) };
        write!(f, "{what:<60} {before:>12.2} {after:>12.2} {change:>9}")
    }
}

/// Every figure that differs by more than it may, in whichever direction.
#[must_use]
pub fn differences(budget: &Budget, measured: &Budget) -> Vec<Difference> {
    let mut sides: BTreeMap<[&str; 3], [f64; 2]> = BTreeMap::new();
    for (side, all) in [budget, measured].into_iter().enumerate() {
        for (stretch, figures) in all {
            for (kind, names) in figures {
                for (name, figure) in names {
                    sides.entry([stretch, kind, name]).or_default()[side] = *figure;
                }
            }
        }
    }
    let differs = |kind: &str, [before, after]: [f64; 2]| match least_tolerance(kind) {
        Some(least) => (after - before).abs() > least.max(before * TOLERANCE),
        // They are read from decimals with two places.
        None => (after - before).abs() > 0.001,
    };
    let differ = sides.into_iter().filter(|([_, kind, _], sides)| differs(kind, *sides));
    differ.map(|(what, [before, after])| Difference { what: what.join(", "), before, after }).collect()
}

/// A table of them, for people.
#[must_use]
pub fn table(differences: &[Difference]) -> String {
    let head = format!("{:<60} {:>12} {:>12} {:>9}", "per order", "budget", "now", "change");
    std::iter::once(head).chain(differences.iter().map(ToString::to_string)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(kind: &str, figure: f64) -> Budget {
        let names = BTreeMap::from([("one".to_owned(), figure)]);
        BTreeMap::from([("calm".to_owned(), BTreeMap::from([(kind.to_owned(), names)]))])
    }

    fn differ(kind: &str, before: f64, after: f64) -> bool {
        !differences(&budget(kind, before), &budget(kind, after)).is_empty()
    }

    #[test]
    fn one_statement_in_a_hundred_orders_is_a_difference_for_better_or_worse() {
        assert!(!differ("statements", 7.25, 7.25));
        assert!(differ("statements", 7.25, 7.26));
        assert!(differ("statements", 7.25, 7.24));
    }

    #[test]
    fn memory_may_differ_by_half_a_percent_and_a_little_by_a_little() {
        assert!(!differ(ALLOCATIONS, 1000.0, 1005.0));
        assert!(differ(ALLOCATIONS, 1000.0, 1006.0));
        assert!(differ(ALLOCATIONS, 1000.0, 994.0));
        assert!(!differ(ALLOCATIONS, 3.0, 5.0));
        assert!(differ(BYTES, 100.0, 400.0));
    }

    #[test]
    fn what_is_new_and_what_is_gone_differ_too() {
        let (with, without) = (budget("statements", 1.0), Budget::new());
        let new = differences(&without, &with);
        assert_eq!(new, [Difference { what: "calm, statements, one".to_owned(), before: 0.0, after: 1.0 }]);
        assert_eq!(differences(&with, &without).len(), 1);
        assert!(table(&new).contains("new"), "{}", table(&new));
    }
}
