-- The views. `view` is the fold of the events as JSON, with the sequences it was computed from; what is looked for stands
-- in columns beside it. `revision` counts the changes of a row, so that none is lost when two instances write it.

CREATE TABLE orders (
    order_id    TEXT   NOT NULL PRIMARY KEY,
    revision    BIGINT NOT NULL,
    -- 1 once order.placed has arrived: events of other services may come first.
    placed      BIGINT NOT NULL,
    customer_id TEXT   NOT NULL,
    kitchen_id  TEXT   NOT NULL,
    status      TEXT   NOT NULL,
    view        TEXT   NOT NULL
);
CREATE INDEX orders_customer ON orders (customer_id, order_id);
CREATE INDEX orders_status ON orders (status, order_id);
CREATE INDEX orders_kitchen ON orders (kitchen_id, status, order_id);

-- Every event of every service that touched an order.
CREATE TABLE timeline (
    order_id     TEXT   NOT NULL,
    source       TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    sequence     BIGINT NOT NULL,
    id           TEXT   NOT NULL,
    type         TEXT   NOT NULL,
    time         TEXT   NOT NULL,
    causation_id TEXT   NOT NULL,
    PRIMARY KEY (order_id, source, subject, sequence)
);

CREATE TABLE kitchens (
    kitchen_id TEXT   NOT NULL PRIMARY KEY,
    revision   BIGINT NOT NULL,
    view       TEXT   NOT NULL
);

CREATE TABLE drivers (
    driver_id TEXT   NOT NULL PRIMARY KEY,
    revision  BIGINT NOT NULL,
    view      TEXT   NOT NULL
);
