//! How soon capacity follows load, and what it costs. Measured: ten times the orders from one moment to the next, and how
//! many workers are awake meanwhile. Beside it a model of who goes by CPU, driven by the same load; and a day with one
//! storm, to which both are extrapolated.
//!
//! A worker is a request in flight from the bridge to a service. In a cluster Knative starts pods where workers wake here,
//! and those take as long as pods do: `rainstorm watch` measures that.

mod autoscaler;
mod curve;
mod town;

use std::time::{Duration, Instant};

use super::{
    BenchError,
    city::{City, Place},
    load,
    report::{Axis, Figure, Part, Plot, Series},
};
use crate::services::NAMES;
use autoscaler::{Autoscaler, LEAST, SCRAPE, SYNC};
use curve::{at_rest, first, highest, integral, mean, steps};
use town::{Customers, Look, Watcher};

const DRIVERS: usize = 1000;
/// Orders kept under way to find out what this machine carries.
const UNDER_WAY: usize = 500;
/// Of that, what a storm brings: much, and not more than can be done.
const STORM: f64 = 0.8;
/// How many times the orders of a calm.
const TIMES: f64 = 10.0;
/// Of the workers that a storm needs, how many are enough for it to be called answered.
const MOST: f64 = 0.9;
/// Seconds for which the model sees calm, and then a storm, to be timed: it has come to an end of its own in each.
const MODEL_CALM: usize = 300;
const MODEL_STORM: usize = 300;
/// Seconds that are drawn after the storm's beginning.
const DRAWN: f64 = 180.0;

const HOUR: usize = 3600;
const DAY: usize = 24 * HOUR;
/// When people eat, and when it rains, in seconds of a day.
const MEALS: [(usize, usize); 2] = [(11 * HOUR, 14 * HOUR), (35 * HOUR / 2, 22 * HOUR)];
const RAIN: (usize, usize) = (19 * HOUR, 19 * HOUR + HOUR / 3);

const AUTOSCALER: &str = "a CPU-threshold autoscaler (model)";
const FIXED: &str = "as many as the storm needs, all day (model)";

/// Measures, and says what the model would have done.
///
/// # Errors
/// If the city doesn't start, doesn't take an order, or doesn't come to rest.
pub async fn measure(place: &Place, quick: bool) -> Result<(Vec<Figure>, Vec<Plot>), BenchError> {
    eprintln!("how soon workers wake when orders are ten times as many ...");
    let city = City::start(place, DRIVERS).await?;
    let reflex = Reflex::measure(&city, quick).await;
    // Its databases go, whatever came of it.
    city.stop().await?;
    let reflex = reflex?;
    let model = Model::of(&reflex);
    let (figures, day) = day(&reflex, &model);
    Ok(([step_figures(&reflex, &model), figures].concat(), vec![step_plot(&reflex, &model), day]))
}

/// What the workers were seen to do. Seconds count from the storm's first order.
struct Reflex {
    /// Orders a second in the storm, and the seconds that it lasted.
    peak: f64,
    length: f64,
    /// Workers awake, each service's, from a calm after a rest through the storm to rest.
    awake: Vec<(f64, [f64; 5])>,
    /// Workers awake in a calm right after a storm: who woke stays awake for as long as there is something to do for each
    /// now and then.
    lingering: f64,
}

impl Reflex {
    async fn measure(city: &City, quick: bool) -> Result<Self, BenchError> {
        let seconds = |short, long| Duration::from_secs_f64(if quick { short } else { long });
        let carried = load::sustained(city, UNDER_WAY, seconds(1.5, 3.0), seconds(2.0, 6.0)).await?;
        let peak = (carried.completed * STORM).max(TIMES);
        let (calm, length) = (peak / TIMES, seconds(3.0, 16.0));

        let client = eventing::http::client().timeout(Duration::from_secs(60)).build().map_err(BenchError::Http)?;
        let (watcher, mut customers) = (Watcher::of(city, &client), Customers::of(city, &client).await?);
        watcher.rest().await?;

        let mut looks = watcher.watch(customers.come(calm, seconds(2.0, 8.0))).await?;
        let storm = Instant::now();
        looks.extend(watcher.watch(customers.come(peak, length)).await?);
        looks.extend(watcher.watch(customers.answered()).await?);
        looks.extend(watcher.rest().await?);

        // Once more, and then it is not over: only calm.
        customers.come(peak, length / 2).await?;
        customers.answered().await?;
        let (begun, lasting) = (Instant::now(), seconds(3.0, 10.0));
        let after = watcher.watch(customers.come(calm, lasting)).await?;
        let lasting = lasting.as_secs_f64();
        let lingering = mean(&totals(&since(begun, &after)), lasting / 2.0, lasting);
        customers.answered().await?;
        Ok(Self { peak, length: length.as_secs_f64(), awake: since(storm, &looks), lingering })
    }

    /// Workers of each service that the storm had awake, on average in its second half.
    fn needed(&self) -> [f64; 5] {
        let of = |service: usize| self.awake.iter().map(|(at, awake)| (*at, awake[service])).collect::<Vec<_>>();
        std::array::from_fn(|service| mean(&of(service), self.length / 2.0, self.length))
    }

    fn times(&self) -> Times {
        let awake = totals(&self.awake);
        // A calm begins with a few who wake for what comes first.
        let settled = awake.first().map_or(0.0, |(at, _)| at / 2.0);
        let (before, needed) = (highest(&awake, settled, 0.0), self.needed().iter().sum::<f64>());
        Times {
            one: first(&awake, 0.0, |awake| awake > before),
            most: first(&awake, 0.0, |awake| awake >= MOST * needed),
            rest: at_rest(&awake, self.length, 0.0),
        }
    }

    /// Workers awake in each second of a day: it has only loads that were measured, and everybody rests as late after each
    /// as was measured.
    fn day(&self) -> Vec<f64> {
        let rest = self.times().rest.unwrap_or_default().ceil() as usize;
        let storm = self.needed().iter().sum();
        let awake = |second| match share(second) {
            none if none <= 0.0 => 0.0,
            calm if calm < 1.0 => self.lingering,
            _ => storm,
        };
        (0..DAY).map(|second| (second.saturating_sub(rest)..=second).map(awake).fold(0.0, f64::max)).collect()
    }
}

/// Seconds from ten times the load to one more worker and to most of those that it needs, and from the storm's end to as
/// few as there can be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    one: Option<f64>,
    most: Option<f64>,
    rest: Option<f64>,
}

/// Autoscalers, one for each service. A pod carries as much of the service's load as one of its workers was seen to carry
/// in the storm.
struct Model {
    autoscaler: Autoscaler,
    /// Each service's load in the storm, in pods that would be busy.
    storm: [f64; 5],
}

impl Model {
    /// It looks neither at the luckiest nor at the unluckiest moments: of all there are it has the median.
    fn of(reflex: &Reflex) -> Self {
        let storm = reflex.needed();
        let moments = (0..SYNC).flat_map(|sync| (0..SCRAPE).map(move |scrape| Autoscaler { sync, scrape }));
        let mut models: Vec<_> = moments.map(|autoscaler| Self { autoscaler, storm }).collect();
        models.sort_by_cached_key(|model| {
            let Times { one, most, .. } = model.times();
            (most.map(f64::to_bits), one.map(f64::to_bits))
        });
        models.swap_remove(models.len() / 2)
    }

    /// All pods that are ready, in each second, where the load is this share of the storm's.
    fn follow(&self, shares: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; shares.len()];
        for storm in self.storm {
            let load: Vec<f64> = shares.iter().map(|share| share * storm).collect();
            for (sum, pods) in all.iter_mut().zip(self.autoscaler.follow(&load)) {
                *sum += pods as f64;
            }
        }
        all
    }

    /// The same in a storm of some length that comes after a calm and before nothing; seconds count from its beginning.
    fn follow_a_storm(&self, length: usize, after: usize) -> Vec<(f64, f64)> {
        let parts = [(1.0 / TIMES, MODEL_CALM), (1.0, length), (0.0, after)];
        let shares: Vec<f64> = parts.iter().flat_map(|(share, seconds)| vec![*share; *seconds]).collect();
        let pods = seconds(&self.follow(&shares));
        pods.into_iter().map(|(at, pods)| (at - MODEL_CALM as f64, pods)).collect()
    }

    fn times(&self) -> Times {
        let pods = self.follow_a_storm(MODEL_STORM, MODEL_STORM);
        let end = MODEL_STORM as f64;
        let (before, needed) = (highest(&pods, -1.0, 0.0), highest(&pods, end - 1.0, end));
        Times {
            one: first(&pods, 0.0, |pods| pods > before),
            most: first(&pods, 0.0, |pods| pods >= MOST * needed),
            rest: at_rest(&pods, end, (NAMES.len() * LEAST) as f64),
        }
    }

    /// Whole workers for the storm, with nothing to spare.
    fn fixed(&self) -> f64 {
        self.storm.iter().map(|storm| storm.ceil()).sum()
    }
}

/// The share of the storm's load that a second of a day has.
fn share(second: usize) -> f64 {
    let in_part = |(from, to): &(usize, usize)| (*from..*to).contains(&second);
    if in_part(&RAIN) {
        1.0
    } else if MEALS.iter().any(in_part) {
        1.0 / TIMES
    } else {
        0.0
    }
}

fn since(begun: Instant, looks: &[Look]) -> Vec<(f64, [f64; 5])> {
    let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
    looks.iter().map(|(at, awake)| (seconds(begun, *at) - seconds(*at, begun), *awake)).collect()
}

fn totals(awake: &[(f64, [f64; 5])]) -> Vec<(f64, f64)> {
    awake.iter().map(|(at, awake)| (*at, awake.iter().sum())).collect()
}

fn seconds(values: &[f64]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(second, value)| (second as f64, *value)).collect()
}

fn step_figures(reflex: &Reflex, model: &Model) -> Vec<Figure> {
    let (ours, theirs) = (reflex.times(), model.times());
    let figure = |name: &str, unit: &str, scale: f64, ours: Option<f64>, theirs: Option<f64>| {
        let figure = Figure::new(Part::Reaction, name, ours? * scale, unit);
        Some(match theirs {
            Some(theirs) => figure.beside(AUTOSCALER, theirs * scale),
            None => figure,
        })
    };
    let times = [
        figure("from ten times the load to the first additional worker", "ms", 1000.0, ours.one, theirs.one),
        figure(
            "from ten times the load to nine tenths of the workers the storm needed",
            "ms",
            1000.0,
            ours.most,
            theirs.most,
        ),
        figure("from the end of the storm to everybody back at rest", "s", 1.0, ours.rest, theirs.rest),
    ];
    let needed = reflex.needed().iter().sum();
    let mut figures = vec![
        Figure::new(Part::Reaction, "orders in the storm", reflex.peak, "orders/s"),
        Figure::new(Part::Reaction, "workers awake in the storm", needed, "workers"),
        Figure::new(Part::Reaction, "workers awake in the calm after a storm", reflex.lingering, "workers"),
    ];
    figures.extend(times.into_iter().flatten());
    figures
}

fn axis(name: &str, unit: &str) -> Axis {
    Axis { name: name.to_owned(), unit: unit.to_owned(), logarithmic: false }
}

fn series(name: &str, model: bool, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), model, points }
}

fn step_plot(reflex: &Reflex, model: &Model) -> Plot {
    let awake = totals(&reflex.awake);
    let begin = awake.first().map_or(0.0, |(at, _)| *at);
    let needed: f64 = reflex.needed().iter().sum();
    let mut pods = model.follow_a_storm(reflex.length.round() as usize, DRAWN as usize);
    pods.retain(|(at, _)| (begin..=DRAWN).contains(at));
    let load = [(begin, needed / TIMES), (0.0, needed), (reflex.length, 0.0), (DRAWN, 0.0)];
    Plot {
        part: Part::Reaction,
        id: "reaction-step".to_owned(),
        title: "Ten times the orders, from one moment to the next".to_owned(),
        x: axis("since the storm began", "s"),
        y: axis("awake", "workers"),
        series: vec![
            series("the reflex", false, steps(&awake)),
            series(AUTOSCALER, true, steps(&pods)),
            series("the load, in workers that it keeps busy in the storm", false, steps(&load)),
        ],
    }
}

fn day(reflex: &Reflex, model: &Model) -> (Vec<Figure>, Plot) {
    let shares: Vec<f64> = (0..DAY).map(share).collect();
    let (ours, theirs) = (seconds(&reflex.day()), seconds(&model.follow(&shares)));
    let fixed = vec![(0.0, model.fixed()), (DAY as f64, model.fixed())];
    let spent = |curve: &[(f64, f64)]| integral(curve, 0.0, DAY as f64);
    let figure = |against, rival: &str, theirs: f64| {
        let name = format!("worker-seconds over a day, reflex (extrapolated), {against}");
        Figure::new(Part::Reaction, name, spent(&ours), "worker-s").beside(rival, theirs)
    };
    let figures = vec![
        figure("against thresholds", AUTOSCALER, spent(&theirs)),
        figure("against a fixed number", FIXED, spent(&fixed)),
    ];
    let hours = |curve: &[(f64, f64)]| steps(curve).into_iter().map(|(at, awake)| (at / HOUR as f64, awake)).collect();
    let plot = Plot {
        part: Part::Reaction,
        id: "reaction-day".to_owned(),
        title: "A day with two meals, and twenty minutes of rain from seven in the evening".to_owned(),
        x: axis("time of day", "h"),
        y: axis("awake", "workers"),
        series: vec![
            series("reflex, from the measured relation (model)", true, hours(&ours)),
            series(AUTOSCALER, true, hours(&theirs)),
            series(FIXED, true, hours(&fixed)),
        ],
    };
    (figures, plot)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One worker of each service in the calm; two from 0.2 s of the storm on, eight from 0.5 s; none 1.5 s after it.
    fn seen() -> Reflex {
        let looks = [(-8.0, 0.0), (-7.0, 1.0), (0.2, 2.0), (0.5, 8.0), (20.5, 3.0), (21.5, 0.0)];
        let awake = looks.map(|(at, workers)| (at, [workers; 5])).to_vec();
        Reflex { peak: 400.0, length: 20.0, awake, lingering: 10.0 }
    }

    #[test]
    fn the_reflex_is_timed_from_the_first_order_of_the_storm_and_from_its_last() {
        assert_eq!(seen().needed(), [8.0; 5]);
        assert_eq!(seen().times(), Times { one: Some(0.2), most: Some(0.5), rest: Some(1.5) });
    }

    #[test]
    fn who_needs_no_more_in_a_storm_than_before_has_not_reacted() {
        let awake = vec![(-8.0, [1.0; 5]), (20.5, [0.0; 5])];
        let reflex = Reflex { awake, ..seen() };
        assert_eq!(reflex.times().one, None);
        let names: Vec<_> = step_figures(&reflex, &Model::of(&reflex)).into_iter().map(|figure| figure.name).collect();
        assert!(!names.iter().any(|name| name.contains("first additional")), "{names:?}");
    }

    #[test]
    fn the_model_stands_for_the_moments_in_the_middle() {
        let model = Model::of(&seen());
        let all = (0..SYNC).flat_map(|sync| (0..SCRAPE).map(move |scrape| Autoscaler { sync, scrape }));
        let all: Vec<_> = all.map(|autoscaler| Model { autoscaler, ..model }.times().most.unwrap()).collect();
        let most = model.times().most.unwrap();
        assert!(all.iter().filter(|other| **other < most).count() <= all.len() / 2);
        assert!(all.iter().filter(|other| **other > most).count() <= all.len() / 2);
    }

    #[test]
    fn the_model_comes_to_its_end_in_calm_and_storm_before_it_is_timed() {
        let model = Model::of(&seen());
        let pods = model.follow_a_storm(MODEL_STORM, MODEL_STORM);
        // 0.8 of a pod's work in the calm, 8 in the storm, and a quarter more than that to spare.
        assert_eq!((highest(&pods, -60.0, 0.0), highest(&pods, 200.0, 300.0)), (5.0, 50.0));
        assert_eq!(model.fixed(), 40.0);
    }

    #[test]
    fn a_day_is_two_meals_and_twenty_minutes_of_rain() {
        let seconds_at = |wanted| (0..DAY).filter(|second| share(*second) == wanted).count();
        assert_eq!(seconds_at(1.0), 20 * 60);
        assert_eq!(seconds_at(1.0 / TIMES), 7 * HOUR + HOUR / 2 - 20 * 60);
    }

    #[test]
    fn a_day_of_the_reflex_is_what_was_measured_for_as_long_as_it_was_measured_to_last() {
        // Two seconds more after each meal and after the rain.
        let (rain, meals) = (20 * 60 + 2, 2 * 2 + 7 * HOUR + HOUR / 2 - 20 * 60 - 2);
        assert_eq!(seen().day().iter().sum::<f64>(), (40 * rain + 10 * meals) as f64);
        let (figures, plot) = day(&seen(), &Model::of(&seen()));
        assert_eq!(figures[0].value, seen().day().iter().sum::<f64>());
        let fixed = figures[1].floor.as_ref().unwrap();
        assert_eq!(fixed.value, (40 * DAY) as f64);
        assert!(plot.series.iter().all(|series| series.model), "nobody has measured a day");
    }
}
