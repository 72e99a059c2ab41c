//! The one thread that writes to a log's file. What has queued up while a transaction was on its way to the disk shares
//! the next one (group commit), so that a storm costs few of them and an append in the calm waits for its own only.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{
    Known, LogError, Record,
    state::{Info, OFFSET_BITS},
    unavailable,
};

/// Tasks that share one transaction, at most.
const GROUP: usize = 256;

/// Something to be written.
pub enum Task {
    /// Topics with so many partitions each, where they don't exist yet.
    Create {
        topics: Vec<String>,
        partitions: i32,
    },
    Append {
        topic: String,
        records: Vec<Record>,
    },
    /// How far the groups have come.
    Positions,
}

type Answer = oneshot::Sender<Result<(), LogError>>;

/// Writes until it is dropped, and then to the end of what it was asked for.
pub struct Writer {
    tasks: Option<mpsc::Sender<(Task, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes with `file`, and brings what is `known` up to date.
    ///
    /// # Errors
    /// If there are no more threads.
    pub fn start(file: Connection, known: Arc<Known>) -> io::Result<Self> {
        let (tasks, asked) = mpsc::channel();
        let write = move || write_in_groups(file, &known, &asked);
        let thread = thread::Builder::new().name("event-log".to_owned()).spawn(write)?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Returns when it is on the disk. Whoever waits may leave at any moment; what he has asked for is done all the same.
    ///
    /// # Errors
    /// What went wrong; then nothing of it is written.
    pub async fn write(&self, task: Task) -> Result<(), LogError> {
        let gone = || LogError::Unavailable("the log is being closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.tasks.as_ref().ok_or_else(gone)?.send((task, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever opens the file next must find in it all that was asked for.
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_in_groups(mut file: Connection, known: &Known, asked: &mpsc::Receiver<(Task, Answer)>) {
    let mut round_robin = 0_u64;
    while let Ok(first) = asked.recv() {
        let (tasks, answers): (Vec<Task>, Vec<Answer>) =
            std::iter::once(first).chain(asked.try_iter().take(GROUP - 1)).unzip();
        let mut group = Group { known, topics: BTreeMap::new(), positions: Vec::new(), round_robin: &mut round_robin };
        let written = group.write(&mut file, tasks);
        let outcomes = written.map_err(|error| group.fail(&error));
        for (place, answer) in answers.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => outcomes[place].clone(),
                Err(reason) => Err(reason.clone()),
            };
            // Whoever asked may have gone.
            let _ = answer.send(outcome.map_err(LogError::Unavailable));
        }
    }
}

/// What is written together.
struct Group<'a> {
    known: &'a Known,
    /// As they will be.
    topics: BTreeMap<String, Vec<Info>>,
    positions: Vec<(String, i64, i64)>,
    round_robin: &'a mut u64,
}

impl Group<'_> {
    /// Writes all tasks in one transaction; what became of each.
    fn write(&mut self, file: &mut Connection, tasks: Vec<Task>) -> Result<Vec<Result<(), String>>, LogError> {
        let transaction = file.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(match task {
                Task::Create { topics, partitions } => {
                    self.create(&transaction, topics, partitions).map_err(unavailable)?;
                    Ok(())
                }
                Task::Append { topic, records } if self.knows(&topic) => {
                    self.append(&transaction, &topic, &records)?;
                    Ok(())
                }
                Task::Append { topic, .. } => Err(format!("there is no topic {topic}")),
                Task::Positions => {
                    self.write_positions(&transaction).map_err(unavailable)?;
                    Ok(())
                }
            });
        }
        transaction.commit().map_err(unavailable)?;
        let mut state = self.known.lock();
        for group in state.groups.values() {
            if self.topics.keys().any(|topic| group.topics.contains(topic)) {
                group.bell.notify_waiters();
            }
        }
        state.topics.append(&mut self.topics);
        Ok(outcomes)
    }

    /// Nothing of it was written; for everybody's ears.
    fn fail(&mut self, error: &LogError) -> String {
        self.known.lock().unwritten(std::mem::take(&mut self.positions));
        match error {
            LogError::Unavailable(reason) | LogError::Setting(reason) => reason.clone(),
        }
    }

    /// Whether there is such a topic, of which more may be known afterwards than everybody knows.
    fn knows(&mut self, topic: &str) -> bool {
        if !self.topics.contains_key(topic)
            && let Some(infos) = self.known.lock().topics.get(topic)
        {
            self.topics.insert(topic.to_owned(), infos.clone());
        }
        self.topics.contains_key(topic)
    }

    fn create(&mut self, file: &Connection, topics: Vec<String>, partitions: i32) -> Result<(), rusqlite::Error> {
        let sql = "INSERT INTO partitions (topic, number) VALUES (?1, ?2) RETURNING id";
        for topic in topics {
            if !self.knows(&topic) {
                let mut statement = file.prepare_cached(sql)?;
                let numbers = 0..partitions;
                let infos = numbers.map(|number| {
                    let id = statement.query_row(params![topic, number], |row| row.get(0))?;
                    Ok(Info { id, end: 0 })
                });
                let infos = infos.collect::<Result<_, rusqlite::Error>>()?;
                self.topics.insert(topic, infos);
            }
        }
        Ok(())
    }

    fn append(&mut self, file: &Connection, topic: &str, records: &[Record]) -> Result<(), LogError> {
        let Some(infos) = self.topics.get_mut(topic) else { return Ok(()) };
        let sql = "INSERT INTO records (id, record) VALUES (?1, ?2)";
        let mut statement = file.prepare_cached(sql).map_err(unavailable)?;
        for record in records {
            let number = match record.key.as_deref() {
                Some(key) => fnv1a(key),
                None => {
                    *self.round_robin += 1;
                    *self.round_robin
                }
            };
            let number = usize::try_from(number % infos.len().max(1) as u64).unwrap_or_default();
            let Some(info) = infos.get_mut(number) else { continue };
            let bytes = postcard::to_allocvec(record).map_err(unavailable)?;
            statement.execute(params![(info.id << OFFSET_BITS) + info.end, bytes]).map_err(unavailable)?;
            info.end += 1;
        }
        Ok(())
    }

    fn write_positions(&mut self, file: &Connection) -> Result<(), rusqlite::Error> {
        let changes = self.known.lock().changes();
        let begin = self.positions.len();
        self.positions.extend(changes);
        let sql = "INSERT OR REPLACE INTO positions (member_group, partition, next) VALUES (?1, ?2, ?3)";
        let mut statement = file.prepare_cached(sql)?;
        for (group, partition, next) in &self.positions[begin..] {
            statement.execute(params![group, partition, next])?;
        }
        Ok(())
    }
}

/// FNV-1a, 64 bits: the same key has the same partition in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
