//! Points of something that stays as it is until the next: workers awake, over seconds.

/// In order of x.
pub type Curve = [(f64, f64)];

/// The sum of each value times how long it lasted, between two moments; worker-seconds, where workers are meant.
pub fn integral(curve: &Curve, from: f64, to: f64) -> f64 {
    let ends = curve.iter().skip(1).map(|(x, _)| *x).chain([to]);
    let parts = curve.iter().zip(ends).map(|((x, y), end)| y * (end.min(to) - x.max(from)).max(0.0));
    parts.sum()
}

/// The value between two moments, on average.
pub fn mean(curve: &Curve, from: f64, to: f64) -> f64 {
    integral(curve, from, to) / (to - from)
}

/// The highest value that was seen between two moments.
pub fn highest(curve: &Curve, from: f64, to: f64) -> f64 {
    curve.iter().filter(|(x, _)| (from..to).contains(x)).map(|(_, y)| *y).fold(0.0, f64::max)
}

/// How long after a moment this was first so of the value.
pub fn first(curve: &Curve, from: f64, is_so: impl Fn(f64) -> bool) -> Option<f64> {
    curve.iter().find(|(x, y)| *x >= from && is_so(*y)).map(|(x, _)| x - from)
}

/// How long after a moment the value had come down to this, never to be above it again.
pub fn at_rest(curve: &Curve, from: f64, level: f64) -> Option<f64> {
    let after = curve.iter().rposition(|(_, y)| *y > level).map_or(0, |last| last + 1);
    curve.get(after).map(|(x, _)| (x - from).max(0.0))
}

/// The same, as a line to be drawn: where the value changes, straight up or down, and nothing in between.
pub fn steps(curve: &Curve) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::new();
    for (place, (x, y)) in curve.iter().enumerate() {
        let before = line.last().map(|(_, y)| *y);
        if before == Some(*y) && place + 1 < curve.len() {
            continue;
        }
        line.extend(before.map(|before| (*x, before)));
        if before != Some(*y) {
            line.push((*x, *y));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One, then four from 2 s on, then five, then none from 8 s on.
    const CURVE: &Curve = &[(0.0, 1.0), (1.0, 1.0), (2.0, 4.0), (4.0, 5.0), (8.0, 0.0), (9.0, 0.0)];

    #[test]
    fn worker_seconds_are_workers_times_how_long_they_were_awake() {
        assert_eq!(integral(CURVE, 0.0, 10.0), 2.0 + 8.0 + 20.0);
        assert_eq!(integral(CURVE, 3.0, 5.0), 4.0 + 5.0);
        assert_eq!(integral(&[(0.0, 3.0)], 0.0, 10.0), 30.0, "the last lasts to the end");
        assert_eq!(mean(CURVE, 3.0, 5.0), 4.5);
        assert_eq!(highest(CURVE, 0.0, 4.0), 4.0);
    }

    #[test]
    fn the_first_time_counts_from_the_moment_that_is_asked_for() {
        assert_eq!(first(CURVE, 1.0, |workers| workers > 1.0), Some(1.0));
        assert_eq!(first(CURVE, 1.0, |workers| workers >= 0.9 * 5.0), Some(3.0), "nine tenths");
        assert_eq!(first(CURVE, 1.0, |workers| workers > 5.0), None);
    }

    #[test]
    fn at_rest_is_who_does_not_rise_again() {
        assert_eq!(at_rest(CURVE, 5.0, 0.0), Some(3.0));
        assert_eq!(at_rest(&[(0.0, 3.0), (1.0, 0.0), (2.0, 1.0), (3.0, 0.0)], 0.0, 0.0), Some(3.0));
        assert_eq!(at_rest(&[(0.0, 3.0), (1.0, 1.0)], 0.0, 0.0), None);
        assert_eq!(at_rest(&[(0.0, 0.0), (9.0, 0.0)], 5.0, 0.0), Some(0.0), "it already was");
    }

    #[test]
    fn a_line_has_its_corners_and_both_its_ends() {
        let line = [(0.0, 1.0), (2.0, 1.0), (2.0, 4.0), (4.0, 4.0), (4.0, 5.0), (8.0, 5.0), (8.0, 0.0), (9.0, 0.0)];
        assert_eq!(steps(CURVE), line);
    }
}
