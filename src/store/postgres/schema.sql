-- What the daemons share. `shard` is the first octet of a terminal's key: the distribution column of every table that
-- grows with the number of terminals, and the leading part of its keys. The other tables are small and everywhere.
CREATE SCHEMA ltkmd;

-- One row. `revision` rises with every change of services and keys.
CREATE TABLE ltkmd.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format int NOT NULL,
    accepts int NOT NULL,
    data_key bytea NOT NULL,
    first_t bigint NOT NULL,
    revision bigint NOT NULL,
    next_service bigint NOT NULL,
    next_ordinal bigint NOT NULL,
    next_job bigint NOT NULL
);

CREATE TABLE ltkmd.service (
    no bigint PRIMARY KEY,
    record bytea NOT NULL
);

CREATE TABLE ltkmd.msk (
    service bigint NOT NULL,
    number int NOT NULL,
    ordinal bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (service, number)
);

CREATE TABLE ltkmd.job (
    id bigint PRIMARY KEY,
    kind smallint NOT NULL,
    service bigint NOT NULL,
    number int NOT NULL,
    state smallint NOT NULL,
    expected bigint NOT NULL,
    started bigint NOT NULL,
    finished bigint,
    open boolean NOT NULL
);
CREATE INDEX job_open ON ltkmd.job (id) WHERE open;

-- The daemons. `epoch` rises with every start, so that what an earlier life of the same name held is over.
CREATE TABLE ltkmd.node (
    name text PRIMARY KEY,
    epoch bigint NOT NULL,
    started timestamptz NOT NULL,
    seen timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    version text NOT NULL,
    format int NOT NULL,
    http text NOT NULL,
    overdue bigint NOT NULL,
    clock_offset_ms bigint NOT NULL
);

-- Who looks after the shards 4 × range to 4 × range + 3: pages of jobs, resends, turns by SMS. Who has range 0 also
-- minds what is done once for all: schedules, purging.
CREATE TABLE ltkmd.lease (
    range int PRIMARY KEY,
    node text,
    epoch bigint
);

CREATE TABLE ltkmd.subscriber (
    shard int NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (shard, id)
);

-- `version` rises with every change; a change of what was read at another version fails. `look` and `turn` are when its
-- deliveries have to be looked at and when its turn by SMS comes.
CREATE TABLE ltkmd.terminal (
    shard int NOT NULL,
    key bytea NOT NULL,
    version bigint NOT NULL,
    credential bytea,
    state bytea,
    look bigint,
    turn bigint,
    PRIMARY KEY (shard, key)
);
CREATE INDEX terminal_look ON ltkmd.terminal (shard, look) WHERE look IS NOT NULL;
CREATE INDEX terminal_turn ON ltkmd.terminal (shard, turn) WHERE turn IS NOT NULL;

CREATE TABLE ltkmd.member (
    shard int NOT NULL,
    service bigint NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (shard, service, key)
);

-- Whose a short message is: the ids in the deliveries of the terminals. `id` leads the key, since a receipt names nothing
-- else; where a centre gives one to two terminals of a shard, the later one has the row.
CREATE TABLE ltkmd.message (
    shard int NOT NULL,
    id text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (id, shard)
);

-- Counters, which follow the terminals in the commits that change them. kind 0: deliveries by state (n0 to n7);
-- 1: members of service a by method and all (n0 to n3); 2: holders of key b of service a (n0 to n3); 3: deliveries of
-- job a by state, and those that were sent (n8).
CREATE TABLE ltkmd.tally (
    shard int NOT NULL,
    kind smallint NOT NULL,
    a bigint NOT NULL,
    b int NOT NULL,
    n0 bigint NOT NULL DEFAULT 0,
    n1 bigint NOT NULL DEFAULT 0,
    n2 bigint NOT NULL DEFAULT 0,
    n3 bigint NOT NULL DEFAULT 0,
    n4 bigint NOT NULL DEFAULT 0,
    n5 bigint NOT NULL DEFAULT 0,
    n6 bigint NOT NULL DEFAULT 0,
    n7 bigint NOT NULL DEFAULT 0,
    n8 bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (shard, kind, a, b)
) WITH (fillfactor = 50);

-- How far a job has come in each shard: the next member to visit; a cancelled one walks back. NULL: it is through.
CREATE TABLE ltkmd.job_shard (
    shard int NOT NULL,
    job bigint NOT NULL,
    step int NOT NULL,
    cursor bytea,
    PRIMARY KEY (shard, job)
) WITH (fillfactor = 50);
CREATE INDEX job_shard_job ON ltkmd.job_shard (job);

INSERT INTO ltkmd.lease (range) SELECT generate_series(0, 63);
INSERT INTO ltkmd.tally (shard, kind, a, b) SELECT shard, 0, 0, 0 FROM generate_series(0, 255) AS shard;
