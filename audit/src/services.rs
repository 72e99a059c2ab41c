//! Who publishes where, and how an event is recognized without keeping it.

use std::hash::{DefaultHasher, Hasher};

use eventing::log::Record;

/// A service that writes.
#[derive(Debug)]
pub struct Service {
    pub name: &'static str,
    /// The CloudEvents source of what it publishes.
    pub source: &'static str,
    pub topic: &'static str,
}

/// The services that write; their places in this list are used everywhere below.
pub static SERVICES: [Service; 4] = [
    Service { name: "order", source: "/orders", topic: "orders" },
    Service { name: "payment", source: "/payments", topic: "payments" },
    Service { name: "kitchen", source: "/kitchen", topic: "kitchen" },
    Service { name: "delivery", source: "/deliveries", topic: "deliveries" },
];

pub const ORDER: usize = 0;
pub const PAYMENT: usize = 1;
pub const KITCHEN: usize = 2;
pub const DELIVERY: usize = 3;

/// The service that only listens.
pub const QUERY: &str = "query";

/// 64 bits that stand for all of `parts`: millions of events are remembered by these. Two different events have the
/// same with a probability of one in 10^19, and nobody here tries to deceive.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// Every byte of a record: key, headers and value.
#[must_use]
pub fn hash_of(record: &Record) -> u64 {
    let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * record.headers.len() + 4);
    let present = |part: &Option<Vec<u8>>| -> &[u8] { if part.is_some() { b"some" } else { b"none" } };
    parts.push(present(&record.key));
    parts.push(record.key.as_deref().unwrap_or_default());
    for (name, value) in &record.headers {
        parts.push(name.as_bytes());
        parts.push(value);
    }
    parts.push(present(&record.value));
    parts.push(record.value.as_deref().unwrap_or_default());
    hash(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_byte_is_another_record() {
        let record = |key: &str, header: (&str, &str), value: Option<&str>| Record {
            key: Some(key.into()),
            headers: vec![(header.0.to_owned(), header.1.into())],
            value: value.map(Into::into),
        };
        let one = record("a", ("b", "c"), Some("d"));
        assert_eq!(hash_of(&one), hash_of(&one.clone()));
        let others = [
            record("x", ("b", "c"), Some("d")),
            record("a", ("x", "c"), Some("d")),
            record("a", ("b", "x"), Some("d")),
            record("a", ("b", "c"), Some("x")),
            record("a", ("bc", ""), Some("d")),
            record("a", ("b", "c"), None),
            Record { key: None, ..one.clone() },
            record("a", ("b", "cd"), Some("")),
        ];
        for other in others {
            assert_ne!(hash_of(&one), hash_of(&other), "{other:?}");
        }
    }
}
