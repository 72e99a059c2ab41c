-- The payments that still owe something: a list for the tick, kept with the events that say so.
CREATE TABLE owed (
    order_id TEXT NOT NULL PRIMARY KEY
);
