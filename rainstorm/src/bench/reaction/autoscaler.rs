//! A model of what a horizontal pod autoscaler does with a deployment when it goes by CPU, at its usual settings. Nothing
//! here is measured. Where the truth depends on the cluster, the model has what is quickest and cheapest: there is always
//! a node with room, pods that are starting or ending cost nothing, nothing queues up while there are too few of them,
//! and a pod may use more CPU than it has asked for, so that the autoscaler sees all of the load and not only that
//! everybody is busy.
//!
//! The algorithm: Kubernetes documentation, "Horizontal Pod Autoscaling", sections "Algorithm details" and "Configurable
//! scaling behavior" (default behavior).

use std::collections::VecDeque;

/// Seconds between two looks: `--horizontal-pod-autoscaler-sync-period`, as it is by default.
pub const SYNC: usize = 15;
/// Seconds over which CPU is averaged, and after which there is a new average: metrics-server's `--metric-resolution`, as
/// its manifests have it.
pub const SCRAPE: usize = 15;
/// The share of its CPU that a pod is to use.
const TARGET: f64 = 0.8;
/// So near to the target nothing is done: `--horizontal-pod-autoscaler-tolerance`, as it is by default.
const TOLERANCE: f64 = 0.1;
/// It doubles, or adds so many pods if that is more, between two looks: the default behavior, both of whose policies have
/// a period of 15 s.
const PODS_AT_ONCE: usize = 4;
/// Seconds: it goes down to no fewer than it has asked for in this time. By default these are 300; 60 is what many set to
/// save more.
const STABILIZATION: usize = 60;
/// Seconds from the wish for a pod until it is ready. An assumption, there is no default: the image is already there, and
/// the program starts at once.
const POD_START: usize = 5;
/// It can't go to zero by CPU: nobody uses any where nobody runs.
pub const LEAST: usize = 1;

/// An autoscaler, by the moments at which it happens to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscaler {
    /// The second within each `SYNC` in which it decides.
    pub sync: usize,
    /// The second within each `SCRAPE` in which a new average is there.
    pub scrape: usize,
}

impl Autoscaler {
    /// The pods that are ready in each second, `load` being how many of them would be busy in that second if each used all
    /// of its CPU. It begins with the fewest.
    pub fn follow(self, load: &[f64]) -> Vec<usize> {
        // The second in which each is ready, oldest first.
        let mut pods = vec![0; LEAST];
        let (mut used, mut wishes) = (None, VecDeque::new());
        let second = |now: usize| {
            if now >= SCRAPE && now % SCRAPE == self.scrape {
                used = Some(load[now - SCRAPE..now].iter().sum::<f64>() / SCRAPE as f64);
            }
            if let Some(used) = used.filter(|_| now % SYNC == self.sync) {
                let wish = wish(pods.len(), used);
                wishes.push_back((now, wish));
                wishes.retain(|(then, _)| then + STABILIZATION > now);
                let wished = wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wish);
                let most = (pods.len() + PODS_AT_ONCE).max(2 * pods.len());
                // The youngest go first.
                pods.resize(wish.max(wished.min(pods.len())).min(most), now + POD_START);
            }
            pods.iter().filter(|ready| **ready <= now).count()
        };
        (0..load.len()).map(second).collect()
    }
}

/// How many of them it would like to have, where so many use as much CPU as `used` of them have.
fn wish(pods: usize, used: f64) -> usize {
    if (used / pods as f64 / TARGET - 1.0).abs() <= TOLERANCE {
        return pods;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is finite and not below 0")]
    let wish = (used / TARGET).ceil() as usize;
    wish.max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS_LATE: Autoscaler = Autoscaler { sync: 14, scrape: 7 };

    /// So much load for so many seconds, one after the other.
    fn load(parts: &[(f64, usize)]) -> Vec<f64> {
        parts.iter().flat_map(|(load, seconds)| vec![*load; *seconds]).collect()
    }

    #[test]
    fn a_step_is_followed_look_after_look_each_pod_ready_after_its_start() {
        // 10 / 0.8 = 12.5 pods; 7 seconds of the step are in the average at 127, 4.7 / 0.8 = 5.8 pods.
        let pods = LOOKS_LATE.follow(&load(&[(0.0, 120), (10.0, 120)]));
        assert_eq!(pods[138], 1);
        assert_eq!((pods[139], pods[153]), (5, 5), "four more at once, five seconds after the look at 134");
        assert_eq!((pods[154], pods[168]), (10, 10), "twice as many");
        assert_eq!((pods[169], pods[239]), (13, 13), "as many as it takes");
    }

    #[test]
    fn noise_within_the_tolerance_does_nothing() {
        let steady = load(&[(8.0, 240)]);
        assert_eq!(LOOKS_LATE.follow(&steady)[239], 10);
        // The average lies 9 % above and 9 % below what ten pods are to do, in turns.
        let noise: Vec<f64> =
            (0..240).map(|second| if (second / SCRAPE).is_multiple_of(2) { 8.72 } else { 7.28 }).collect();
        let pods = Autoscaler { scrape: 0, ..LOOKS_LATE }.follow(&[steady, noise].concat());
        assert!(pods[240..].iter().all(|pods| *pods == 10), "{pods:?}");
        let more = LOOKS_LATE.follow(&load(&[(8.0, 240), (8.9, 240)]));
        assert_eq!(more[479], 12, "beyond it something is done");
    }

    #[test]
    fn it_goes_down_only_when_nobody_has_wished_for_more_for_a_minute() {
        let pods = LOOKS_LATE.follow(&load(&[(8.0, 240), (0.0, 240)]));
        // The last look that wishes for ten is at 239; the look at 254 sees half a window of load and wishes for fewer.
        assert_eq!(pods[298], 10);
        assert!(pods[299] < 10 && pods[314] == LEAST, "{:?}", &pods[240..]);
        // A pause in the rain of half a minute changes nothing.
        let pods = LOOKS_LATE.follow(&load(&[(8.0, 240), (0.0, 30), (8.0, 200)]));
        assert!(pods[240..].iter().all(|pods| *pods == 10), "{pods:?}");
    }

    #[test]
    fn without_any_load_one_stays() {
        assert!(LOOKS_LATE.follow(&load(&[(0.0, 600)])).iter().all(|pods| *pods == LEAST));
    }
}
