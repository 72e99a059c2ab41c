-- The order service's own copy of what each kitchen published last, so that it takes orders while the kitchen service is
-- down. A projection of `kitchen.menu_published`; `sequence` says of which.
CREATE TABLE menus (
    kitchen_id TEXT   NOT NULL PRIMARY KEY,
    sequence   BIGINT NOT NULL,
    menu       TEXT   NOT NULL
);
