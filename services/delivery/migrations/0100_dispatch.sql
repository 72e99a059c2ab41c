-- What dispatch looks at, kept in the same transactions as the events it follows from.

-- The orders that wait for a driver. `since` is RFC 3339 with nine digits of a second, so that it sorts as text.
CREATE TABLE waiting (
    order_id TEXT NOT NULL PRIMARY KEY,
    since    TEXT NOT NULL
);
CREATE INDEX waiting_longest ON waiting (since, order_id);

-- Each driver's last state (JSON) and the version of its stream, which nobody has to read from its beginning.
CREATE TABLE drivers (
    driver_id TEXT   NOT NULL PRIMARY KEY,
    version   BIGINT NOT NULL,
    free      BIGINT NOT NULL,
    state     TEXT   NOT NULL
);
CREATE INDEX drivers_free ON drivers (version, driver_id) WHERE free = 1;
