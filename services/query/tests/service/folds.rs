//! The folds, without a database.

use eventing::Incoming;
use proptest::{prelude::*, sample::Index};
use query::views::{Applied, OrderView, Status, View};
use serde_json::json;

use crate::{ORDER, cancelled, delivered, event, placed};

fn fold(events: impl IntoIterator<Item = Incoming>) -> OrderView {
    let mut view = OrderView::default();
    for event in events {
        assert_eq!(view.apply(&event), Applied::Changed, "{event:?}");
    }
    view
}

proptest! {
    /// Events of different services overtake each other, come twice and come too early; the view doesn't care.
    #[test]
    fn any_interleaving_with_repeats_and_gaps_gives_the_same_view(
        was_cancelled: bool,
        choices in prop::collection::vec((0..4_usize, any::<bool>(), any::<Option<Index>>()), 60),
    ) {
        let streams = if was_cancelled { cancelled() } else { delivered() };
        let mut view = OrderView::default();
        let mut next = [0; 4];
        let mut told: Vec<Incoming> = Vec::new();
        // In the end everything is told.
        let rest = (0..4).flat_map(|stream| vec![(stream, false, None); 6]);
        for (stream, too_early, again) in choices.into_iter().chain(rest) {
            if let Some(later) = streams[stream].get(next[stream] + 1).filter(|_| too_early) {
                let before = view.clone();
                prop_assert_eq!(view.apply(later), Applied::TooEarly { expected: next[stream] as i64 + 1 });
                prop_assert_eq!(&view, &before);
            }
            if let Some(event) = streams[stream].get(next[stream]) {
                prop_assert_eq!(view.apply(event), Applied::Changed);
                next[stream] += 1;
                told.push(event.clone());
            }
            if let Some(again) = again.filter(|_| !told.is_empty()) {
                let before = view.clone();
                prop_assert_eq!(view.apply(again.get(&told)), Applied::Repeated);
                prop_assert_eq!(&view, &before);
            }
        }
        prop_assert_eq!(view, fold(streams.into_iter().flatten()));
    }
}

#[test]
fn a_cancelled_order_says_why_when_and_what_became_of_the_money() {
    let view = fold(cancelled().into_iter().flatten());
    assert_eq!((view.status, view.captured, view.refunded), (Status::Cancelled, 950, 950));
    let cancellation = view.cancellation.unwrap();
    assert_eq!(cancellation.reason.as_deref(), Some("customer_request"));
    assert_eq!(cancellation.requested_at.as_deref(), Some("2026-11-24T09:00:08.000000Z"));
    assert_eq!((cancellation.refused_at, &cancellation.cancelled_at), (None, &view.ended_at));
    assert_eq!(view.ended_at.as_deref(), Some("2026-11-24T09:00:12.000000Z"));
}

#[test]
fn what_cannot_be_read_leaves_the_view_as_it_was() {
    let mut whole = fold(delivered().into_iter().flatten());
    let before = whole.clone();
    let (name, mut strange) = placed();
    strange["customer_id"] = json!("a\0da");
    let most = json!({"amount": {"amount": i64::MAX, "currency": "EUR"}});
    let mut without_sequence = event("/payments", ORDER, 2, "payment.refunded", most.clone());
    without_sequence.sequence = None;
    for unreadable in [
        event("/orders", ORDER, 3, name, strange),
        event("/payments", ORDER, 2, "payment.confirmed", most),
        event("/payments", ORDER, 2, "payment.refunded", json!({})),
        without_sequence,
    ] {
        assert!(matches!(whole.apply(&unreadable), Applied::Unreadable(_)), "{unreadable:?}");
        assert_eq!(whole, before);
    }
}
