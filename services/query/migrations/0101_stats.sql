-- What the views come to when they are added up: `value` is the sum of what each row of the views contributes under
-- `name`, over all time (`minute` 0) or in one minute (minutes since 1970). It changes in the transaction in which the
-- rows do. See `stats.rs` for the names.
CREATE TABLE stats (
    minute BIGINT NOT NULL,
    name   TEXT   NOT NULL,
    value  BIGINT NOT NULL,
    PRIMARY KEY (minute, name)
);

-- What may come back to zero is there from the beginning, so that equal views always have equal sums.
INSERT INTO stats (minute, name, value) VALUES
    (0, 'now placed', 0), (0, 'now paid', 0), (0, 'now cooking', 0), (0, 'now packed', 0),
    (0, 'now out_for_delivery', 0), (0, 'now delivered', 0), (0, 'now completed', 0), (0, 'now cancelled', 0),
    (0, 'drivers free', 0), (0, 'drivers riding', 0), (0, 'drivers off_shift', 0);
