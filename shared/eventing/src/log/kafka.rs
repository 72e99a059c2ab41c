//! Apache Kafka as the event log, through librdkafka.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::{Notify, mpsc};

use super::{Batch, EventLog, Lag, LogError, Member, Partition, Record, Stored, Stretch};

/// Records of one partition that wait in memory: above the first figure no more are fetched, until below the second.
const BUFFER: (usize, usize) = (1024, 256);
/// The largest record, in bytes. Whatever came through a door may have to lie on its dead-letter topic, which must not
/// depend on Kafka's own limit of 1 MiB: a letter that can't be told would hold up all that come after it.
const RECORD: &str = "8388608";
/// How long a broker may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records of one partition that are handed out at a time when many are read.
const AT_ONCE: usize = 500;
/// The group of whoever is in none: nothing is ever committed for it.
const READER: &str = "rainstorm-reader";
/// What is fetched ahead for one who follows, in KiB: there may be many of them.
const FOLLOWED_AHEAD: &str = "2048";
/// And for one who reads everything at once.
const FETCHED_AHEAD: &str = "65536";

/// A log kept by a Kafka cluster.
pub struct KafkaLog {
    config: ClientConfig,
    partitions: i32,
    /// Made when something is first appended: who only reads may not be allowed to have one.
    producer: OnceLock<FutureProducer>,
    /// Who asks for positions, by the group that they are asked of: whoever watches the lag asks several times a second.
    askers: Mutex<HashMap<String, Arc<BaseConsumer>>>,
}

/// A client can't be made with these settings.
fn wrong(error: KafkaError) -> LogError {
    LogError::Setting(format!("Kafka: {error}"))
}

fn unavailable(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

impl KafkaLog {
    /// The cluster at `brokers`. `settings` are librdkafka's own, under their own names (`security.protocol`,
    /// `sasl.mechanism` …); topics that this process creates get `partitions` partitions.
    ///
    /// # Errors
    /// If a setting is unknown or contradictory. Brokers that don't answer are no error yet.
    pub fn new(brokers: &str, partitions: i32, settings: &HashMap<String, String>) -> Result<Self, LogError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("client.id", "rainstorm");
        for (name, value) in settings {
            config.set(name, value);
        }
        // Whatever is wrong with the settings is wrong with a consumer's, too.
        config.create::<BaseConsumer>().map_err(wrong)?;
        Ok(Self { config, partitions, producer: OnceLock::new(), askers: Mutex::default() })
    }

    fn producer(&self) -> Result<&FutureProducer, LogError> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let producer = self
            .config
            .clone()
            // Durable on every replica, and in order, without repeats of its own making.
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // As Java's clients place a key, so that whoever writes it, one order is in one partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("message.max.bytes", RECORD)
            // Then the publisher is told, and tries again from the first event that is missing.
            .set("message.timeout.ms", "8000")
            .create()
            .map_err(wrong)?;
        // Another's may have been quicker; then this one, which nothing was sent with, goes.
        Ok(self.producer.get_or_init(|| producer))
    }

    /// Asks something about `group`, or about what no group is involved in, away from the runtime's threads.
    async fn ask<T: Send + 'static>(
        &self,
        group: Option<&str>,
        question: impl FnOnce(&BaseConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let asker = self.asker(group.unwrap_or(READER))?;
        let answer = tokio::task::spawn_blocking(move || {
            // Nothing is ever consumed with it; what librdkafka has to say about its connections would pile up.
            while asker.poll(Duration::ZERO).is_some() {}
            question(&asker)
        });
        answer.await.map_err(unavailable)?.map_err(unavailable)
    }

    fn asker(&self, group: &str) -> Result<Arc<BaseConsumer>, LogError> {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asker) = askers.get(group) {
            return Ok(asker.clone());
        }
        let asker: BaseConsumer =
            self.config.clone().set("group.id", group).set("enable.auto.commit", "false").create().map_err(wrong)?;
        Ok(askers.entry(group.to_owned()).or_insert(Arc::new(asker)).clone())
    }

    /// Reads with a client of its own, which has fetched so many KiB ahead at most.
    async fn read_with<T: Send + 'static>(
        &self,
        ahead: &str,
        read: impl FnOnce(&BaseConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let mut config = self.config.clone();
        config.set("group.id", READER).set("enable.auto.commit", "false").set("queued.max.messages.kbytes", ahead);
        let answer = tokio::task::spawn_blocking(move || read(&config.create()?));
        answer.await.map_err(unavailable)?.map_err(unavailable)
    }
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<Partition>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().iter().find(|known| known.name() == topic);
    let mut partitions: Vec<_> = found
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| Partition { topic: topic.to_owned(), number: partition.id() })
        .collect();
    partitions.sort();
    Ok(partitions)
}

/// Of each partition its [beginning](Offset::Beginning) or its [end](Offset::End), with one question for all. Who leads a
/// partition has yet to be settled for a moment, when its topic is new or its leader has gone: that passes.
fn marks(consumer: &BaseConsumer, partitions: &[Partition], which: Offset) -> Result<Vec<i64>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let since = Instant::now();
    loop {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&partition.topic, partition.number, which)?;
        }
        let answer = consumer.offsets_for_times(list, PATIENCE).and_then(|list| {
            let elements = list.elements();
            let found: HashMap<_, _> = elements.iter().map(|it| ((it.topic(), it.partition()), it)).collect();
            let mark = |partition: &Partition| {
                let element = found.get(&(partition.topic.as_str(), partition.number));
                let element = element.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
                element.error().map(|()| element.offset().to_raw().unwrap_or_default())
            };
            partitions.iter().map(mark).collect()
        });
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let passes =
            matches!(code, Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable));
        if !passes || since.elapsed() > PATIENCE {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        let known = topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>();
        let missing = self.ask(None, move |consumer| {
            let metadata = consumer.fetch_metadata(None, PATIENCE)?;
            let exists = |topic: &String| metadata.topics().iter().any(|known| known.name() == topic);
            Ok(known.into_iter().filter(|topic| !exists(topic)).collect::<Vec<_>>())
        });
        let missing = missing.await?;
        if missing.is_empty() {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = self.config.create().map_err(unavailable)?;
        // -1: as many replicas as the cluster's own default says.
        let new = |topic| NewTopic::new(topic, self.partitions, TopicReplication::Fixed(-1));
        let new: Vec<_> = missing.iter().map(|topic| new(topic).set("max.message.bytes", RECORD)).collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for created in admin.create_topics(&new, &options).await.map_err(unavailable)? {
            match created {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, error)) => return Err(unavailable(format!("topic {topic} can't be created: {error}"))),
            }
        }
        Ok(())
    }

    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        // A record is sent when its predecessor of the same key is acknowledged: a lost one leaves no gap behind it.
        let mut by_key: Vec<VecDeque<Record>> = Vec::new();
        let mut places: HashMap<Option<Vec<u8>>, usize> = HashMap::new();
        for record in records {
            let place = *places.entry(record.key.clone()).or_insert_with(|| {
                by_key.push(VecDeque::new());
                by_key.len() - 1
            });
            by_key[place].push_back(record);
        }
        loop {
            let round: Vec<Record> = by_key.iter_mut().filter_map(VecDeque::pop_front).collect();
            if round.is_empty() {
                return Ok(());
            }
            let sent = join_all(round.iter().map(|record| self.send(topic, record))).await;
            sent.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
    }

    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError> {
        let shared = Arc::new(Shared::default());
        let consumer: StreamConsumer<Watch> = self
            .config
            .clone()
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "500")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            // A partition may wait for a service for hours; the heartbeat says that the bridge is alive.
            .set("max.poll.interval.ms", "86400000")
            // A topic that is created after its first reader has come is found by then, not five minutes later.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "8192")
            .create_with_context(Watch(shared.clone()))
            .map_err(wrong)?;
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).map_err(unavailable)?;
        let consumer = Arc::new(consumer);
        let fetching = tokio::spawn(fetch(consumer.clone(), shared.clone()));
        Ok(Arc::new(KafkaMember { consumer, shared, fetching }))
    }

    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        let partition = partition.clone();
        self.read_with(FETCHED_AHEAD, move |consumer| {
            let one = std::slice::from_ref(&partition);
            let (low, high) = (marks(consumer, one, Offset::Beginning)?[0], marks(consumer, one, Offset::End)?[0]);
            let Partition { topic, number } = partition;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, number, Offset::Offset(offset.max(low)))?;
            consumer.assign(&list)?;
            let mut records = Vec::new();
            let mut next = offset.max(low);
            let mut newest = Instant::now();
            while next < high && records.len() < limit {
                // librdkafka also returns for its own affairs, with nothing.
                let Some(message) = consumer.poll(Duration::from_millis(500)).transpose()? else {
                    if newest.elapsed() > PATIENCE {
                        return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                    }
                    continue;
                };
                newest = Instant::now();
                next = message.offset() + 1;
                records.push(Stored { offset: message.offset(), record: record(&message) });
            }
            Ok(records)
        })
        .await
    }

    /// With one client for all of them, however many there are.
    async fn read_all(&self, stretches: Vec<Stretch>, read: mpsc::Sender<Result<Batch, LogError>>) {
        let batches = read.clone();
        let reading = self.read_with(FETCHED_AHEAD, move |consumer| Reading::begin(consumer, stretches)?.run(&batches));
        if let Err(error) = reading.await {
            // Whoever has asked may have gone.
            let _ = read.send(Err(error)).await;
        }
    }

    async fn follow(&self, from: Vec<(Partition, i64)>, read: mpsc::Sender<Result<Batch, LogError>>) {
        let batches = read.clone();
        if let Err(error) = self.read_with(FOLLOWED_AHEAD, move |consumer| follow(consumer, from, &batches)).await {
            // Whoever has asked may have gone.
            let _ = read.send(Err(error)).await;
        }
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        let topic = topic.to_owned();
        self.ask(None, move |consumer| {
            let partitions = partitions_of(consumer, &topic)?;
            let low = marks(consumer, &partitions, Offset::Beginning)?;
            let high = marks(consumer, &partitions, Offset::End)?;
            Ok(partitions
                .into_iter()
                .zip(low)
                .zip(high)
                .map(|((partition, low), high)| (partition, low, high))
                .collect())
        })
        .await
    }

    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        let topics = topics.to_vec();
        self.ask(Some(group), move |consumer| {
            let (mut all, mut partitions) = (TopicPartitionList::new(), Vec::new());
            for partition in
                topics.iter().map(|topic| partitions_of(consumer, topic)).collect::<Result<Vec<_>, _>>()?.concat()
            {
                all.add_partition(&partition.topic, partition.number);
                partitions.push(partition);
            }
            let low = marks(consumer, &partitions, Offset::Beginning)?;
            let ends = marks(consumer, &partitions, Offset::End)?;
            let committed = consumer.committed_offsets(all, PATIENCE)?;
            let committed: HashMap<_, _> = committed
                .elements()
                .into_iter()
                .map(|it| ((it.topic().to_owned(), it.partition()), it.offset().to_raw()))
                .collect();
            let lag = partitions.into_iter().zip(low).zip(ends).map(|((partition, low), end)| {
                let known = committed.get(&(partition.topic.clone(), partition.number)).copied().flatten();
                Lag { committed: known.filter(|offset| *offset >= 0).unwrap_or(low), partition, end }
            });
            Ok(lag.collect())
        })
        .await
    }
}

impl KafkaLog {
    async fn send(&self, topic: &str, record: &Record) -> Result<(), LogError> {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        self.producer()?.send(message, PATIENCE).await.map(|_| ()).map_err(|(error, _)| unavailable(error))
    }
}

/// Hands out whatever has arrived together, on and on.
fn follow(
    consumer: &BaseConsumer,
    from: Vec<(Partition, i64)>,
    read: &mpsc::Sender<Result<Batch, LogError>>,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(offset))?;
    }
    consumer.assign(&list)?;
    while !read.is_closed() {
        let mut arrived: BTreeMap<Partition, Vec<Stored>> = BTreeMap::new();
        let mut next = consumer.poll(Duration::from_millis(200));
        for _ in 0..AT_ONCE {
            match next.take() {
                None => break,
                // A broker that is away for a moment comes back by itself.
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) => {
                    let partition = Partition { topic: message.topic().to_owned(), number: message.partition() };
                    let stored = Stored { offset: message.offset(), record: record(&message) };
                    arrived.entry(partition).or_default().push(stored);
                }
            }
            next = consumer.poll(Duration::ZERO);
        }
        for (partition, records) in arrived {
            if read.blocking_send(Ok(Batch { partition, records, lease: 0 })).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
}

/// Several stretches, read at the same time.
struct Reading<'a> {
    consumer: &'a BaseConsumer,
    /// Of each partition that isn't read to its end: where that is, and what was read.
    open: HashMap<Partition, (i64, Vec<Stored>)>,
}

impl<'a> Reading<'a> {
    fn begin(consumer: &'a BaseConsumer, stretches: Vec<Stretch>) -> Result<Self, KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut open = HashMap::new();
        for Stretch { partition, from, to } in stretches.into_iter().filter(|it| it.from < it.to) {
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(from))?;
            open.insert(partition, (to, Vec::new()));
        }
        consumer.assign(&list)?;
        Ok(Self { consumer, open })
    }

    fn run(mut self, read: &mpsc::Sender<Result<Batch, LogError>>) -> Result<(), KafkaError> {
        let mut newest = Instant::now();
        while !self.open.is_empty() {
            // librdkafka also returns for its own affairs, with nothing.
            let Some(message) = self.consumer.poll(Duration::from_millis(500)).transpose()? else {
                if newest.elapsed() > PATIENCE {
                    return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                }
                continue;
            };
            newest = Instant::now();
            let partition = Partition { topic: message.topic().to_owned(), number: message.partition() };
            let Some((to, records)) = self.open.get_mut(&partition) else { continue };
            if message.offset() < *to {
                records.push(Stored { offset: message.offset(), record: record(&message) });
            }
            let is_read = message.offset() + 1 >= *to;
            if records.len() >= AT_ONCE || is_read {
                let batch = Batch { partition: partition.clone(), records: std::mem::take(records), lease: 0 };
                if !batch.records.is_empty() && read.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            if is_read {
                self.consumer.pause(&list(&partition))?;
                self.open.remove(&partition);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Shared {
    /// What this member holds.
    partitions: Mutex<BTreeMap<Partition, Buffer>>,
    /// Leases that batches were given so far.
    leases: AtomicU64,
    arrived: Notify,
}

#[derive(Default)]
struct Buffer {
    records: VecDeque<Stored>,
    /// The lease of the batch that is out. One that was taken before the partition went and came back has another.
    out: Option<u64>,
    in_hand: usize,
    paused: bool,
}

impl Shared {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<Partition, Buffer>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears from librdkafka which partitions come and go.
struct Watch(Arc<Shared>);
impl ClientContext for Watch {}
impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let named = |list: &TopicPartitionList| -> Vec<Partition> {
            let elements = list.elements();
            elements.iter().map(|it| Partition { topic: it.topic().to_owned(), number: it.partition() }).collect()
        };
        let mut partitions = self.0.partitions();
        match rebalance {
            Rebalance::Assign(list) => named(list).into_iter().for_each(|it| {
                partitions.insert(it, Buffer::default());
            }),
            Rebalance::Revoke(list) => named(list).iter().for_each(|it| {
                partitions.remove(it);
            }),
            Rebalance::Error(error) => tracing::warn!(%error, "the group could not be rebalanced"),
        }
    }
}

fn list(partition: &Partition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&partition.topic, partition.number);
    list
}

/// Sorts what comes from the brokers into the partitions' buffers.
async fn fetch(consumer: Arc<StreamConsumer<Watch>>, shared: Arc<Shared>) {
    loop {
        match consumer.recv().await {
            Ok(message) => {
                let partition = Partition { topic: message.topic().to_owned(), number: message.partition() };
                let stored = Stored { offset: message.offset(), record: record(&message) };
                let mut partitions = shared.partitions();
                let Some(buffer) = partitions.get_mut(&partition) else { continue };
                buffer.records.push_back(stored);
                if buffer.records.len() >= BUFFER.0 && !buffer.paused {
                    buffer.paused = consumer.pause(&list(&partition)).is_ok();
                }
                drop(partitions);
                shared.arrived.notify_waiters();
            }
            Err(error) => {
                tracing::warn!(%error, "the event log does not answer");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

struct KafkaMember {
    consumer: Arc<StreamConsumer<Watch>>,
    shared: Arc<Shared>,
    fetching: tokio::task::JoinHandle<()>,
}

impl KafkaMember {
    fn take(&self, limit: usize) -> Option<Batch> {
        static TURN: OnceLock<std::sync::atomic::AtomicUsize> = OnceLock::new();
        let turn = TURN.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut partitions = self.shared.partitions();
        let ready: Vec<_> =
            partitions.iter_mut().filter(|(_, buffer)| buffer.out.is_none() && !buffer.records.is_empty()).collect();
        let chosen = turn % ready.len().max(1);
        let (partition, buffer) = ready.into_iter().nth(chosen)?;
        let records: Vec<_> = buffer.records.drain(..limit.min(buffer.records.len())).collect();
        let lease = self.shared.leases.fetch_add(1, Ordering::Relaxed);
        buffer.out = Some(lease);
        buffer.in_hand = records.len();
        if buffer.paused && buffer.records.len() <= BUFFER.1 {
            buffer.paused = self.consumer.resume(&list(partition)).is_err();
        }
        Some(Batch { partition: partition.clone(), records, lease })
    }

    /// The buffer that `batch` came from, if that batch is still this member's business.
    fn settle<T>(&self, batch: &Batch, with: impl FnOnce(&mut Buffer) -> T) -> Option<T> {
        let mut partitions = self.shared.partitions();
        let buffer = partitions.get_mut(&batch.partition)?;
        if buffer.out != Some(batch.lease) {
            return None;
        }
        buffer.out = None;
        buffer.in_hand = 0;
        Some(with(buffer))
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

#[async_trait]
impl Member for KafkaMember {
    async fn next(&self, limit: usize) -> Result<Batch, LogError> {
        loop {
            let mut arrived = std::pin::pin!(self.shared.arrived.notified());
            arrived.as_mut().enable();
            if let Some(batch) = self.take(limit) {
                return Ok(batch);
            }
            arrived.await;
        }
    }

    async fn finished(&self, batch: &Batch) {
        let last = batch.records.last().map_or(-1, |record| record.offset);
        let stored =
            self.settle(batch, |_| self.consumer.store_offset(&batch.partition.topic, batch.partition.number, last));
        if let Some(Err(error)) = stored {
            tracing::debug!(%error, partition = ?batch.partition, "the offset was not stored; the batch will be told again");
        }
        self.shared.arrived.notify_waiters();
    }

    async fn returned(&self, batch: &Batch) {
        self.settle(batch, |buffer| batch.records.iter().rev().for_each(|it| buffer.records.push_front(it.clone())));
        self.shared.arrived.notify_waiters();
    }

    fn holds(&self, partition: &Partition) -> bool {
        self.shared.partitions().contains_key(partition)
    }

    fn waiting(&self) -> u64 {
        let partitions = self.shared.partitions();
        partitions.values().map(|buffer| (buffer.records.len() + buffer.in_hand) as u64).sum()
    }

    async fn arrival(&self) {
        loop {
            let mut arrived = std::pin::pin!(self.shared.arrived.notified());
            arrived.as_mut().enable();
            if self.shared.partitions().values().any(|buffer| buffer.out.is_none() && !buffer.records.is_empty()) {
                return;
            }
            arrived.await;
        }
    }

    async fn leave(&self) {
        self.fetching.abort();
        let consumer = self.consumer.clone();
        let left = tokio::task::spawn_blocking(move || {
            let committed = consumer.commit_consumer_state(CommitMode::Sync);
            consumer.unsubscribe();
            committed
        });
        match left.await {
            Ok(Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset))) => {}
            Ok(Err(error)) => tracing::warn!(%error, "offsets were not committed; some events will be told again"),
            Err(error) => tracing::warn!(%error, "the group was not left in order"),
        }
    }
}
