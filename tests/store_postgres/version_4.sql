-- A database as ringgeard with tables of version 4 left it: pg_dump --column-inserts, without settings.
CREATE TABLE ringgear_dead (
    number bigint NOT NULL,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint NOT NULL,
    run_at_part_ms smallint NOT NULL,
    last_reason text,
    was_lost boolean NOT NULL,
    reason text NOT NULL,
    died_ms bigint NOT NULL,
    worker bytea NOT NULL,
    message bytea NOT NULL
);
ALTER TABLE ONLY ringgear_dead ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_job (
    number bigint NOT NULL,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint DEFAULT 0 NOT NULL,
    run_at_part_ms smallint DEFAULT 0 NOT NULL,
    last_reason text,
    was_lost boolean DEFAULT false NOT NULL
);
ALTER TABLE ONLY ringgear_job ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_owner (
    only_row boolean DEFAULT true NOT NULL,
    version integer NOT NULL,
    generation bigint NOT NULL,
    owner bytea NOT NULL,
    handle_prefix bytea,
    next_sequence bigint,
    CONSTRAINT ringgear_owner_only_row_check CHECK (only_row)
);
CREATE TABLE ringgear_pause (
    function bytea NOT NULL,
    until_ms bigint
);
ALTER TABLE ONLY ringgear_pause REPLICA IDENTITY FULL;
INSERT INTO ringgear_job (number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, run_at_part_ms, last_reason, was_lost) VALUES (7552727561011489, '\x726573697a65', '\x70686f746f2d37', '\x', 1, 0, 0, '\x610062', 1796036969179, 0, NULL, false);
INSERT INTO ringgear_job (number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, run_at_part_ms, last_reason, was_lost) VALUES (7552727561011859, '\x6d61696c', '\x', '\x', 0, 0, 0, '\x746f2077686f6d', 1796036969179, 0, NULL, false);
INSERT INTO ringgear_job (number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, run_at_part_ms, last_reason, was_lost) VALUES (7552727561012104, '\x696d706f7274', '\x6e696768746c79', '\x', 1, 1806036969, 0, '\x726f7773', 1796036969179, 0, NULL, false);
INSERT INTO ringgear_dead (number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, run_at_part_ms, last_reason, was_lost, reason, died_ms, worker, message) VALUES (7552727561012224, '\x6d61696c', '\x', '\x', 1, 0, 3, '\x626f756e636573', 1796036969179, 0, 'exception', true, 'exception', 1796036970000, '\x77616e6461', '\x626f6f6d');
INSERT INTO ringgear_pause (function, until_ms) VALUES ('\x696d706f7274', NULL);
INSERT INTO ringgear_owner (only_row, version, generation, owner, handle_prefix, next_sequence) VALUES (true, 4, 1, '\x8600cddc3492d51e489ce9f949df8bdf', '\x483a666f7572', 29507137002497);
ALTER TABLE ONLY ringgear_dead
    ADD CONSTRAINT ringgear_dead_pkey PRIMARY KEY (number);
ALTER TABLE ONLY ringgear_job
    ADD CONSTRAINT ringgear_job_pkey PRIMARY KEY (number);
ALTER TABLE ONLY ringgear_owner
    ADD CONSTRAINT ringgear_owner_pkey PRIMARY KEY (only_row);
