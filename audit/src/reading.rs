//! Reading the log: each record goes into the story that it belongs to, or is found to be nobody's.

use cloudevents::AttributesReader;
use eventing::{
    Incoming, from_record,
    log::{Partition, Stored},
    name_and_version,
};

use crate::{
    AuditError,
    report::{Check, Who},
    run::{Audit, Stories},
    services::{SERVICES, hash, hash_of},
    slices::{Scan, Slice},
    story::{self, Taken},
    streams,
};

impl Audit<'_> {
    /// Reads the records of a slice into stories.
    pub async fn read(
        &mut self,
        slice: &Slice,
        stories: &mut Stories,
        late: bool,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), AuditError> {
        let log = &*self.deployment.log;
        let mut read = 0;
        for (service, partition, begin, end) in &slice.partitions {
            let mut scan = Scan::new(log, partition, *begin, *end);
            loop {
                let records = scan.next().await?;
                if records.is_empty() {
                    break;
                }
                read += records.len() as u64;
                for stored in records.into_iter().filter(|stored| slice.has(&stored.record)) {
                    self.take(*service, partition, &stored, stories, late);
                }
                progress(read);
            }
        }
        Ok(())
    }

    /// Puts a record where it belongs.
    fn take(&mut self, service: usize, partition: &Partition, stored: &Stored, stories: &mut Stories, late: bool) {
        self.records += 1;
        let event = from_record(&stored.record).map_err(|_| None).and_then(|event| {
            Incoming::read(event).map_err(|never| Some((never.0.id().to_owned(), never.0.ty().to_owned())))
        });
        let event = match event {
            Ok(event) if is_ours(service, &event) => event,
            Ok(event) => return self.take_foreign(Some((&event.id, &event.event_type)), partition, stored),
            Err(Some((id, event_type))) => return self.take_foreign(Some((&id, &event_type)), partition, stored),
            Err(None) => return self.take_foreign(None, partition, stored),
        };
        self.tally.checked(Check::Streams, 1);
        let record = hash_of(&stored.record);
        let story = stories.entry(event.subject.clone()).or_default();
        match story.take(service, &event, record, late) {
            Taken::Next => self.ids[service].insert(hash(&[event.id.as_bytes()])),
            Taken::Repeated => self.repeats += 1,
            // Told again by whoever couldn't know: nobody here has acted upon it.
            Taken::Wrong(_) if self.letters.tell_of(hash(&[event.id.as_bytes()])) => self.foreign += 1,
            Taken::Wrong(what) => {
                let at = event.sequence.map(|version| (service, version));
                let place = format!("{}/{} offset {}", partition.topic, partition.number, stored.offset);
                let what = format!("{} {what} ({place})", event.source);
                self.tally.fail(Check::Streams, Who::Subject(event.subject), at, what);
            }
        }
    }

    /// A record that none of our services has written: it had no effect if it concerns nobody, or lies in dead letters.
    fn take_foreign(&mut self, event: Option<(&str, &str)>, partition: &Partition, stored: &Stored) {
        self.foreign += 1;
        let told = match event {
            Some((id, event_type)) => {
                let concerns_nobody =
                    name_and_version(event_type).is_none_or(|(name, _)| streams::machine(name).is_none());
                concerns_nobody || self.letters.tell_of(hash(&[id.as_bytes()]))
            }
            None => self.letters.tell_of_place(partition, stored.offset),
        };
        if !told && !self.options.in_flight {
            let what = format!(
                "{}/{} offset {}: no event of ours, and no dead letter tells of it",
                partition.topic, partition.number, stored.offset
            );
            let who = match event {
                Some((id, _)) => Who::Event(hash(&[id.as_bytes()])),
                None => Who::Nobody,
            };
            self.tally.fail(Check::Stored, who, None, what);
        }
    }
}

/// Whether a service of ours may have written this, by the look of it.
fn is_ours(service: usize, event: &Incoming) -> bool {
    event.source == SERVICES[service].source
        && event.sequence.is_some_and(|version| version > 0)
        && story::known(&event.event_type).is_some()
}
