-- What every service remembers, in words that PostgreSQL and SQLite both understand.

-- The streams. The same rows are the outbox: an event is on the log once `published` is 1.
CREATE TABLE events (
    stream_id      TEXT   NOT NULL,
    version        BIGINT NOT NULL,
    id             TEXT   NOT NULL,
    type           TEXT   NOT NULL,
    time           TEXT   NOT NULL,
    correlation_id TEXT   NOT NULL,
    causation_id   TEXT   NOT NULL,
    traceparent    TEXT   NOT NULL,
    tracestate     TEXT   NOT NULL,
    data           TEXT   NOT NULL,
    published      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (stream_id, version)
);
CREATE INDEX events_unpublished ON events (stream_id, version) WHERE published = 0;

-- What has come in, so that nothing has its effect twice. A foreign event stands here from the moment before it is
-- handled (`attempts`) and becomes `done` in the transaction of its effects; one without effect leaves no row.
-- A command that brought an Idempotency-Key stands here under the source `command`. `stream_id` has the streams that
-- were changed, separated by spaces.
CREATE TABLE inbox (
    source    TEXT   NOT NULL,
    id        TEXT   NOT NULL,
    attempts  BIGINT NOT NULL,
    done      BIGINT NOT NULL,
    stream_id TEXT   NOT NULL,
    PRIMARY KEY (source, id)
);

-- What could not be handled (`reason`), and what waits behind it (`parked_behind`). `event` is the CloudEvent as it
-- came, in structured JSON; `published` is 1 once it is on the dead-letter topic.
CREATE TABLE dead_letters (
    source        TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    attempts      BIGINT NOT NULL,
    parked_behind TEXT   NOT NULL,
    position      BIGINT NOT NULL,
    event         TEXT   NOT NULL,
    published     BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (source, id)
);
CREATE INDEX dead_letters_subject ON dead_letters (subject, position);
