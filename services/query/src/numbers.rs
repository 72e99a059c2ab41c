//! The business in numbers, for Prometheus: what the views come to when they are added up.

use prometheus::{IntGaugeVec, Opts, Registry};
use runtime::metrics::register;

use crate::http::Views;

/// Gauges that are set whenever somebody looks.
#[derive(Clone)]
pub struct Numbers {
    views: Views,
    orders: IntGaugeVec,
    drivers: IntGaugeVec,
    captured: IntGaugeVec,
    refunded: IntGaugeVec,
}

impl Numbers {
    /// Numbers of these views.
    #[must_use]
    pub fn new(views: Views, registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str, label: &str| {
            register(registry, IntGaugeVec::new(Opts::new(format!("rainstorm_{name}"), help), &[label]))
        };
        Self {
            views,
            orders: gauge("orders", "Orders in each status.", "status"),
            drivers: gauge("drivers", "Drivers in each state.", "state"),
            captured: gauge("captured_minor_units", "Money taken from customers so far.", "currency"),
            refunded: gauge("refunded_minor_units", "Money given back to customers so far.", "currency"),
        }
    }

    /// Looks what they are now. Where the database doesn't answer they stay as they were.
    pub async fn look(self) {
        // No minute is later than this one: only the sums of all time are asked for.
        let sums = self.views.sums(i64::MAX).await.unwrap_or_default();
        for (_, name, value) in &sums {
            let gauge = match name.split_once(' ') {
                Some(("now", status)) => self.orders.with_label_values(&[status]),
                Some(("drivers", state)) => self.drivers.with_label_values(&[state]),
                Some(("captured", currency)) => {
                    // Who has taken money and given none back has given back zero.
                    self.refunded.with_label_values(&[currency]);
                    self.captured.with_label_values(&[currency])
                }
                Some(("refunded", currency)) => self.refunded.with_label_values(&[currency]),
                _ => continue,
            };
            gauge.set(*value);
        }
    }
}
