-- A letter has a state (failed, parked, redelivered, discarded) and the time when it came into it. A closed one stays here
-- until that is on the topic. `origin` says in JSON where the record stood on the log.
ALTER TABLE dead_letters ADD COLUMN state TEXT NOT NULL DEFAULT 'failed';
ALTER TABLE dead_letters ADD COLUMN time TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN origin TEXT NOT NULL DEFAULT '{}';
UPDATE dead_letters SET state = 'parked' WHERE parked_behind <> '';
ALTER TABLE dead_letters DROP COLUMN parked_behind;
CREATE INDEX dead_letters_position ON dead_letters (position);
CREATE INDEX dead_letters_unpublished ON dead_letters (position) WHERE published = 0;
