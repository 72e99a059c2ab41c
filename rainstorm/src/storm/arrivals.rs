//! When which customer comes: a pure function of the weather and its seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The curve of a storm.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Orders per second outside the storm, and in it.
    pub calm: f64,
    pub peak: f64,
    /// How long it is calm, before and after.
    pub calm_for: Duration,
    pub storm_for: Duration,
    /// Shares of the customers, 0 to 1.
    pub cancelling: f64,
    pub bad_cards: f64,
    pub seed: u64,
}

impl Weather {
    /// The curve of a usual storm; its customers are others each time.
    #[must_use]
    pub fn usual() -> Self {
        let (calm_for, storm_for) = (Duration::from_secs(10), Duration::from_secs(15));
        Self { calm: 40.0, peak: 400.0, calm_for, storm_for, cancelling: 0.03, bad_cards: 0.03, seed: rand::random() }
    }

    /// From which second on how many orders a second; none from the last on.
    #[must_use]
    pub fn planned(&self) -> Vec<(f64, f64)> {
        let (calm, storm) = (self.calm_for.as_secs_f64(), self.storm_for.as_secs_f64());
        let phases = [(0.0, self.calm), (calm, self.peak), (calm + storm, self.calm), (2.0 * calm + storm, 0.0)];
        // A phase that takes no time is none.
        let lasting = |place: &usize| place + 1 == phases.len() || phases[*place].0 < phases[place + 1].0;
        (0..phases.len()).filter(lasting).map(|place| phases[place]).collect()
    }
}

/// A kitchen that is open: its id, and the dishes it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenKitchen {
    pub kitchen_id: String,
    pub dishes: Vec<String>,
}

/// A customer who is going to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// After the storm's first moment.
    pub at: Duration,
    pub in_storm: bool,
    /// Sent with the order, so that one that has to be sent again stays one order.
    pub key: String,
    pub customer_id: String,
    pub kitchen_id: String,
    /// Dishes and how many of each.
    pub items: Vec<(String, u32)>,
    pub bad_card: bool,
    /// How long after the order was accepted the customer changes his mind.
    pub cancels_after: Option<Duration>,
}

/// Everybody who comes, in order.
#[must_use]
pub fn schedule(weather: &Weather, kitchens: &[OpenKitchen]) -> Vec<Arrival> {
    let mut dice = StdRng::seed_from_u64(weather.seed);
    let phases = [
        (weather.calm, weather.calm_for, false),
        (weather.peak, weather.storm_for, true),
        (weather.calm, weather.calm_for, false),
    ];
    let mut arrivals = Vec::new();
    let mut begin = Duration::ZERO;
    for (rate, length, in_storm) in phases {
        // So many customers as the rate says, each at some moment of a slot of his own.
        let mut slot = 0.0;
        loop {
            let at = Duration::from_secs_f64((slot + dice.random::<f64>()) / rate);
            if slot / rate >= length.as_secs_f64() || at >= length {
                break;
            }
            arrivals.push(arrival(&mut dice, begin + at, in_storm, arrivals.len(), weather, kitchens));
            slot += 1.0;
        }
        begin += length;
    }
    arrivals
}

/// One customer; `number` tells him from the others.
pub fn arrival(
    dice: &mut StdRng,
    at: Duration,
    in_storm: bool,
    number: usize,
    weather: &Weather,
    kitchens: &[OpenKitchen],
) -> Arrival {
    let kitchen = &kitchens[dice.random_range(0..kitchens.len())];
    let mut items: Vec<(String, u32)> = Vec::new();
    for _ in 0..dice.random_range(1..=3) {
        let dish = &kitchen.dishes[dice.random_range(0..kitchen.dishes.len())];
        if !items.iter().any(|(known, _)| known == dish) {
            items.push((dish.clone(), dice.random_range(1..=2)));
        }
    }
    let cancels = dice.random_bool(weather.cancelling);
    let pause = Duration::from_millis(dice.random_range(0..300));
    Arrival {
        at,
        in_storm,
        key: format!("storm-{:016x}-{number}-{}", weather.seed, std::process::id()),
        customer_id: format!("customer-{}", dice.random_range(1..=5000)),
        kitchen_id: kitchen.kitchen_id.clone(),
        items,
        bad_card: dice.random_bool(weather.bad_cards),
        cancels_after: cancels.then_some(pause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weather(seed: u64) -> Weather {
        let (calm_for, storm_for) = (Duration::from_secs(10), Duration::from_secs(15));
        Weather { calm: 40.0, peak: 400.0, calm_for, storm_for, cancelling: 0.03, bad_cards: 0.03, seed }
    }

    fn kitchens() -> Vec<OpenKitchen> {
        let kitchen = |id: &str| OpenKitchen { kitchen_id: id.into(), dishes: vec!["soup".into(), "bread".into()] };
        vec![kitchen("a"), kitchen("b")]
    }

    #[test]
    fn the_same_seed_brings_the_same_customers_and_another_brings_others() {
        assert_eq!(schedule(&weather(1), &kitchens()), schedule(&weather(1), &kitchens()));
        assert_ne!(schedule(&weather(1), &kitchens()), schedule(&weather(2), &kitchens()));
    }

    #[test]
    fn the_default_storm_brings_ten_times_as_many_and_more_than_five_thousand_in_all() {
        for seed in 0..20 {
            let arrivals = schedule(&weather(seed), &kitchens());
            assert!(arrivals.len() > 5_000, "{}", arrivals.len());
            assert!(arrivals.windows(2).all(|pair| pair[0].at <= pair[1].at));
            let in_storm = arrivals.iter().filter(|arrival| arrival.in_storm).count();
            assert_eq!(in_storm, 6_000);
            let bad = arrivals.iter().filter(|arrival| arrival.bad_card).count();
            assert!(bad > 0 && bad < arrivals.len() / 10);
            assert!(arrivals.iter().all(|arrival| !arrival.items.is_empty()));
        }
    }
}
