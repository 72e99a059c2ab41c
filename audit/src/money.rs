//! Money: what the customer paid and did not get back is what was delivered, in payment's stream and in the books of
//! the provider alike. Every charge is asked under the id of the event that placed the order, every refund under the id
//! of the one that cancelled it; so each has one key for ever.

use std::collections::HashMap;

use event_sourcing::{Database, Row};

use crate::{
    report::{Check, Who},
    run::{Audit, Stories},
    services::{ORDER, PAYMENT, hash},
    stores::{PAGE, keyed},
    story::{Data, Story},
};

/// A line of the provider's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    pub charge_key: String,
    pub amount: i64,
    pub currency: String,
    pub outcome: String,
}

/// By idempotency key.
pub type Entries = HashMap<String, Entry>;

const COLUMNS: &str = "idempotency_key, kind, charge_key, amount, currency, outcome";

fn entry(row: &Row) -> Result<(String, Entry), sqlx::Error> {
    let entry = Entry {
        kind: row.text(1)?,
        charge_key: row.text(2)?,
        amount: row.int(3)?,
        currency: row.text(4)?,
        outcome: row.text(5)?,
    };
    Ok((row.text(0)?, entry))
}

/// What an order's streams say of its money.
#[derive(Debug, Default)]
pub struct Money<'a> {
    pub placed: Option<&'a Data>,
    cancelled: Option<&'a Data>,
    confirmed: Vec<&'a Data>,
    refunded: Vec<&'a Data>,
    refund_owed: Vec<&'a Data>,
}

impl<'a> Money<'a> {
    pub fn of(story: &'a Story) -> Self {
        let mut money = Self::default();
        for seen in story.streams[ORDER].iter().chain(&story.streams[PAYMENT]).filter(|seen| !seen.foreign) {
            let Some(data) = seen.data.as_deref() else { continue };
            match seen.name {
                "order.placed" => money.placed = Some(data),
                "order.cancelled" => money.cancelled = Some(data),
                "payment.confirmed" => money.confirmed.push(data),
                "payment.refunded" => money.refunded.push(data),
                "payment.refund_owed" => money.refund_owed.push(data),
                _ => {}
            }
        }
        money
    }

    /// The keys under which the provider may have been asked.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.placed.into_iter().chain(self.cancelled).map(|data| &*data.id)
    }

    /// What is wrong in payment's stream. `kept`: whether the money is the seller's in the end, if there is an end.
    pub fn in_its_stream(&self, kept: Option<bool>) -> Result<(), String> {
        let Some(placed) = self.placed else { return Ok(()) };
        let Some(total) = &placed.amount else { return Err("the order has no total".to_owned()) };
        for (what, moved) in [("taken", &self.confirmed), ("given back", &self.refunded)] {
            for data in moved {
                if data.amount.as_ref() != Some(total) {
                    return Err(format!("{what}: {:?}, and the total is {total:?}", data.amount));
                }
                if data.charge_key.as_ref() != Some(&placed.id) {
                    return Err(format!("{what} under the key {:?}, which is not the order's", data.charge_key));
                }
            }
        }
        let of_its_own = |data: &&&Data| self.cancelled.is_some_and(|it| data.refund_key.as_ref() == Some(&it.id));
        if let Some(owed) = self.refund_owed.iter().find(|data| !of_its_own(data)) {
            return Err(format!("owed back under the key {:?}, which is not the cancellation's", owed.refund_key));
        }
        let balance = total.amount * (self.confirmed.len() as i64 - self.refunded.len() as i64);
        match kept {
            Some(kept) if balance != if kept { total.amount } else { 0 } => {
                let hoped = if kept { "delivered" } else { "not delivered" };
                Err(format!("{balance} of {} are with the seller, and the order was {hoped}", total.amount))
            }
            Some(_) => Ok(()),
            None if balance == 0 || balance == total.amount => Ok(()),
            None => Err(format!("{balance} of {} are with the seller", total.amount)),
        }
    }

    /// What is wrong in the provider's books.
    pub fn in_the_ledger(&self, ledger: &Entries, kept: Option<bool>) -> Result<(), String> {
        let Some(placed) = self.placed else { return Ok(()) };
        let Some(total) = &placed.amount else { return Ok(()) };
        let charge = ledger.get(&*placed.id);
        let refund = self.cancelled.and_then(|cancelled| ledger.get(&*cancelled.id));
        let right = |entry: &Entry, kind: &str| {
            entry.kind == kind
                && entry.charge_key == *placed.id
                && (entry.amount, &*entry.currency) == (total.amount, &*total.currency)
        };
        let paid = charge.is_some_and(|entry| entry.outcome == "paid");
        let refunded = refund.is_some_and(|entry| entry.outcome == "refunded");
        if let Some(charge) = charge.filter(|entry| paid && !right(entry, "charge")) {
            return Err(format!("the ledger has {charge:?} for a total of {total:?}"));
        }
        if let Some(refund) = refund.filter(|entry| refunded && !right(entry, "refund")) {
            return Err(format!("the ledger has {refund:?} for a total of {total:?}"));
        }
        if !self.confirmed.is_empty() && !paid {
            return Err(format!("confirmed, and the ledger has no paid charge but {charge:?}"));
        }
        if !self.refunded.is_empty() && !refunded {
            return Err(format!("refunded, and the ledger has no refund but {refund:?}"));
        }
        match kept {
            Some(kept) if (paid && !refunded) != kept => {
                let hoped = if kept { "delivered" } else { "not delivered" };
                Err(format!("the order was {hoped}, and the ledger has {charge:?} and {refund:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The entries under the keys of these stories.
pub async fn find(ledger: &Database, stories: &Stories) -> Result<Entries, sqlx::Error> {
    let keys = stories.values().flat_map(|story| Money::of(story).keys().collect::<Vec<_>>());
    let keys = keys.map(ToOwned::to_owned).collect();
    let mut found = Entries::new();
    for rows in keyed(ledger, COLUMNS, "provider_ledger", "idempotency_key", keys) {
        for row in rows.await? {
            let (key, entry) = entry(&row)?;
            found.insert(key, entry);
        }
    }
    Ok(found)
}

impl Audit<'_> {
    /// Every entry of the ledger belongs to a payment.
    pub async fn sweep_ledger(&mut self, ledger: &Database) -> Result<(), sqlx::Error> {
        self.charges.settle();
        let mut after = String::new();
        let sql = format!(
            "SELECT {COLUMNS} FROM provider_ledger WHERE idempotency_key > $1 ORDER BY idempotency_key LIMIT $2"
        );
        loop {
            let rows = ledger.fetch(&*sql, [after.as_str().into(), PAGE.into()]).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.text(0)?;
            for row in &rows {
                let (key, entry) = entry(row)?;
                if self.charges.contains(hash(&[key.as_bytes()])) {
                    continue;
                }
                let Entry { kind, charge_key, amount, currency, outcome } = entry;
                let what = format!(
                    "the ledger has a {kind} of {amount} {currency} ({outcome}) under {key}, for {charge_key}, which \
                     no payment knows"
                );
                let about = if charge_key.is_empty() { &key } else { &charge_key };
                self.tally.fail(Check::Ledger, Who::Event(hash(&[about.as_bytes()])), None, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story;

    fn data(id: &str, amount: i64) -> Data {
        let amount = Some(story::Money { amount, currency: "EUR".into() });
        let [charge_key, refund_key] = ["placed", "cancelled"].map(|key| Some(key.into()));
        Data { id: id.into(), amount, charge_key, refund_key, ..Data::default() }
    }

    fn entry(kind: &str, amount: i64, outcome: &str) -> Entry {
        let [kind, outcome, currency, charge_key] = [kind, outcome, "EUR", "placed"].map(ToOwned::to_owned);
        Entry { kind, charge_key, amount, currency, outcome }
    }

    fn entries<const N: usize>(entries: [(&str, Entry); N]) -> Entries {
        entries.into_iter().map(|(key, entry)| (key.to_owned(), entry)).collect()
    }

    #[test]
    fn what_was_delivered_is_paid_and_what_was_not_is_given_back() {
        let (placed, cancelled, paid, back) =
            (data("placed", 950), data("cancelled", 0), data("a", 950), data("b", 950));
        let mut money = Money { placed: Some(&placed), cancelled: Some(&cancelled), ..Money::default() };
        assert!(money.in_its_stream(Some(false)).is_ok() && money.in_its_stream(Some(true)).is_err());
        money.confirmed.push(&paid);
        assert!(money.in_its_stream(Some(true)).is_ok() && money.in_its_stream(Some(false)).is_err());
        money.refunded.push(&back);
        assert!(money.in_its_stream(Some(false)).is_ok() && money.in_its_stream(Some(true)).is_err());
        money.confirmed.push(&paid);
        money.confirmed.push(&paid);
        assert!(money.in_its_stream(None).is_err());
    }

    #[test]
    fn money_moves_in_the_orders_amount_and_under_its_keys() {
        let (placed, paid) = (data("placed", 950), data("a", 951));
        let wrong_amount = Money { placed: Some(&placed), confirmed: vec![&paid], ..Money::default() };
        assert!(wrong_amount.in_its_stream(None).unwrap_err().contains("951"));
        let elsewhere = data("another order", 950);
        let wrong_key = Money { placed: Some(&elsewhere), confirmed: vec![&elsewhere], ..Money::default() };
        assert!(wrong_key.in_its_stream(None).unwrap_err().contains("key"));
        let owed = Money { placed: Some(&placed), refund_owed: vec![&placed], ..Money::default() };
        assert!(owed.in_its_stream(None).unwrap_err().contains("cancellation"));
    }

    #[test]
    fn the_ledger_agrees_with_the_stream() {
        let (placed, cancelled, paid, back) =
            (data("placed", 950), data("cancelled", 0), data("a", 950), data("b", 950));
        let charge = || ("placed", entry("charge", 950, "paid"));
        let refund = || ("cancelled", entry("refund", 950, "refunded"));
        let mut money = Money { placed: Some(&placed), cancelled: Some(&cancelled), ..Money::default() };
        assert!(money.in_the_ledger(&entries([]), Some(false)).is_ok());
        assert!(money.in_the_ledger(&entries([("placed", entry("charge", 0, "voided"))]), Some(false)).is_ok());
        assert!(money.in_the_ledger(&entries([charge()]), Some(false)).is_err());
        assert!(money.in_the_ledger(&entries([charge()]), None).is_ok(), "the answer is on its way");
        money.confirmed.push(&paid);
        assert!(money.in_the_ledger(&entries([charge()]), Some(true)).is_ok());
        assert!(money.in_the_ledger(&entries([]), None).is_err());
        assert!(money.in_the_ledger(&entries([("placed", entry("charge", 951, "paid"))]), None).is_err());
        money.refunded.push(&back);
        assert!(money.in_the_ledger(&entries([charge(), refund()]), Some(false)).is_ok());
        assert!(money.in_the_ledger(&entries([charge()]), None).is_err());
        assert!(money.in_the_ledger(&entries([charge(), refund()]), Some(true)).is_err());
    }
}
