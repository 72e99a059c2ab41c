//! The stories of those for whom something doesn't hold. Only now, and only for the few that are told, the log is read
//! once more: hashes become names, and names become timelines.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use eventing::{
    Incoming, from_record,
    log::{EventLog, LogError, Partition, Stored},
};

use crate::{
    AuditError,
    inbox::effect,
    report::{Differing, Finding, Step, Told, Who},
    run::Audit,
    services::{SERVICES, hash},
    slices::Scan,
};

/// Events of one timeline, at most: a driver's stream may be as long as his life.
const STEPS: usize = 400;

impl Audit<'_> {
    /// Everything that was found, by whom it is about.
    pub async fn tell(&mut self) -> Result<Vec<Differing>, AuditError> {
        let findings = std::mem::take(&mut self.tally.findings);
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        let log = &*self.deployment.log;
        let hashed = findings.keys().filter(|who| matches!(who, Who::Event(_) | Who::Effect(_))).cloned().collect();
        let names = names(log, hashed).await?;
        let mut named: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
        for (who, findings) in findings {
            let name = match &who {
                Who::Subject(subject) => subject.clone(),
                hashed => names.get(hashed).cloned().unwrap_or_else(|| "(nobody on the log)".to_owned()),
            };
            named.entry(name).or_default().extend(findings);
        }
        let mut timelines = timelines(log, named.keys().cloned().collect()).await?;
        let differing = named.into_iter().map(|(id, findings)| {
            let mut timeline = timelines.remove(&id).unwrap_or_default();
            timeline.sort();
            for step in &mut timeline {
                let here = |finding: &&Finding| {
                    finding.at.is_some_and(|(service, version)| {
                        (SERVICES[service].source, version) == (&*step.source, step.sequence) && step.subject == id
                    })
                };
                step.differs = findings.iter().filter(here).map(|finding| finding.what.clone()).collect();
            }
            let findings = findings.into_iter().map(|Finding { check, what, .. }| Told { check, what }).collect();
            Differing { id, findings, timeline }
        });
        Ok(differing.collect())
    }
}

/// Reads every record of every topic, and does something with each.
async fn each(log: &dyn EventLog, mut with: impl FnMut(usize, &Partition, Stored)) -> Result<(), LogError> {
    for (service, topic) in SERVICES.iter().map(|service| service.topic).enumerate() {
        for (partition, begin, end) in log.watermarks(topic).await? {
            let mut scan = Scan::new(log, &partition, begin, end);
            loop {
                let records = scan.next().await?;
                if records.is_empty() {
                    break;
                }
                records.into_iter().for_each(|stored| with(service, &partition, stored));
            }
        }
    }
    Ok(())
}

fn header<'a>(stored: &'a Stored, name: &str) -> &'a str {
    stored.record.header(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

/// Whose these hashes are.
async fn names(log: &dyn EventLog, wanted: BTreeSet<Who>) -> Result<HashMap<Who, String>, LogError> {
    let mut names = HashMap::new();
    if wanted.is_empty() {
        return Ok(names);
    }
    each(log, |service, _, stored| {
        let subject = header(&stored, "ce_subject");
        let cause = hash(&[header(&stored, "ce_causationid").as_bytes()]);
        let id = hash(&[header(&stored, "ce_id").as_bytes()]);
        for who in [Who::Event(id), Who::Effect(effect(service, cause, subject))] {
            if wanted.contains(&who) {
                names.entry(who).or_insert_with(|| subject.to_owned());
            }
        }
    })
    .await?;
    Ok(names)
}

/// Every event that belongs to one of these: in its streams, or under its correlation id.
async fn timelines(log: &dyn EventLog, ids: BTreeSet<String>) -> Result<HashMap<String, Vec<Step>>, LogError> {
    let mut timelines: HashMap<String, Vec<Step>> = HashMap::new();
    each(log, |_, partition, stored| {
        let about = [header(&stored, "ce_subject"), header(&stored, "ce_correlationid")];
        let about = if about[0] == about[1] { &about[..1] } else { &about[..] };
        for id in about.iter().filter(|id| ids.contains(**id)) {
            let steps = timelines.entry((*id).to_owned()).or_default();
            if steps.len() < STEPS {
                steps.extend(step(partition, &stored));
            }
        }
    })
    .await?;
    Ok(timelines)
}

fn step(partition: &Partition, stored: &Stored) -> Option<Step> {
    let event = Incoming::read(from_record(&stored.record).ok()?).ok()?;
    Some(Step {
        time: event.time,
        source: event.source,
        subject: event.subject,
        sequence: event.sequence.unwrap_or_default(),
        event_type: event.event_type,
        id: event.id,
        causation_id: event.causation_id,
        partition: partition.number,
        offset: stored.offset,
        differs: Vec::new(),
    })
}
