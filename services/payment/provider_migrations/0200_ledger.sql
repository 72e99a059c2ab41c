-- The simulated payment provider's own books: another company's, so a rebuild of payment never touches them.
-- `kind` is charge or refund; `outcome` is pending, paid, declined, voided or refunded. A key has one entry for ever.
CREATE TABLE provider_ledger (
    idempotency_key TEXT   NOT NULL PRIMARY KEY,
    kind            TEXT   NOT NULL,
    charge_key      TEXT   NOT NULL,
    amount          BIGINT NOT NULL,
    currency        TEXT   NOT NULL,
    outcome         TEXT   NOT NULL,
    failures        BIGINT NOT NULL DEFAULT 0
);
