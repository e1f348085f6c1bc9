//! The statements of the hot paths. Each names its shards in `$1`, so that a distributed database sends it to the one
//! place that has them. [`READ_MESSAGES`] cannot, and what is overdue is looked for in all of a daemon's shards at once.

use std::borrow::Cow;

/// A statement as it is for a database of one place or of many. In one place it needs no shards: for each row that is
/// looked up by its key, the server would go through all of them.
pub(super) fn placed(text: &'static str, distributed: bool) -> Cow<'static, str> {
    if distributed {
        return Cow::Borrowed(text);
    }
    let tables = ["t", "s", "m", "j"];
    let whole = tables.iter().fold(text.to_owned(), |text, table| {
        text.replace(&format!("{table}.shard = ANY($1::int[])"), "$1::int[] IS NOT NULL")
    });
    Cow::Owned(whole)
}

/// Terminals by their keys.
pub(super) const READ_TERMINALS: &str = "\
    SELECT t.key, t.version, t.credential, t.state \
    FROM unnest($2::int[], $3::bytea[]) AS n(shard, key) \
    JOIN ltkmd.terminal t ON t.shard = n.shard AND t.key = n.key \
    WHERE t.shard = ANY($1::int[])";

/// Subscribers by their ids.
pub(super) const READ_SUBSCRIBERS: &str = "\
    SELECT s.id, s.version, s.record \
    FROM unnest($2::int[], $3::text[]) AS n(shard, id) \
    JOIN ltkmd.subscriber s ON s.shard = n.shard AND s.id = n.id \
    WHERE s.shard = ANY($1::int[])";

/// What decisions are made under.
pub(super) const READ_REVISION: &str = "SELECT revision FROM ltkmd.meta";

/// Held by every update until its commit; a change of services, keys, jobs or leases takes it for itself alone. So what
/// an update's guard has seen holds until it has committed.
pub(super) const SHARE: &str = "SELECT pg_advisory_xact_lock_shared(4276215384)";

/// See [`SHARE`].
pub(super) const EXCLUDE: &str = "SELECT pg_advisory_xact_lock(4276215384)";

/// See [`EXCLUDE`]: for as long as the connection lives, and without waiting.
pub(super) const TRY_EXCLUDE: &str = "SELECT pg_try_advisory_lock(4276215384)";

/// Fails (division by zero) unless services and keys are of revision `$1`, the node `$2` of epoch `$3` has `$5` leases
/// among the ranges `$4`, and the job `$6` is in the state `$7`. Each is asked for only where it is given.
pub(super) const GUARD: &str = "\
    SELECT 1 / (CASE WHEN m.revision = coalesce($1::bigint, m.revision) \
        AND ($2::text IS NULL OR $5::bigint = (SELECT count(*) FROM ltkmd.lease l \
            WHERE l.range = ANY($4::int[]) AND l.node = $2::text AND l.epoch = $3::bigint)) \
        AND ($6::bigint IS NULL OR $7::smallint = (SELECT j.state FROM ltkmd.job j WHERE j.id = $6::bigint)) \
        THEN 1 ELSE 0 END) FROM ltkmd.meta m";

/// Changes terminals. One that is not of the version that was read fails (a version is never null). Without a version its
/// row is only touched: its version rises, so that changes fail that were decided before this one.
pub(super) const UPDATE_TERMINALS: &str = "\
    UPDATE ltkmd.terminal t SET \
        version = CASE WHEN t.version = coalesce(n.version, t.version) THEN t.version + 1 END, \
        credential = CASE WHEN n.keep THEN t.credential ELSE n.credential END, \
        state = CASE WHEN n.version IS NULL THEN t.state ELSE n.state END, \
        look = CASE WHEN n.version IS NULL THEN t.look ELSE n.look END, \
        turn = CASE WHEN n.version IS NULL THEN t.turn ELSE n.turn END \
    FROM unnest($2::int[], $3::bytea[], $4::bigint[], $5::boolean[], $6::bytea[], $7::bytea[], $8::bigint[], \
        $9::bigint[]) AS n(shard, key, version, keep, credential, state, look, turn) \
    WHERE t.shard = ANY($1::int[]) AND t.shard = n.shard AND t.key = n.key";

/// Puts terminals in that were not there. One that came meanwhile fails (unique violation).
pub(super) const INSERT_TERMINALS: &str = "\
    INSERT INTO ltkmd.terminal (shard, key, version, credential, state, look, turn) \
    SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[])";

/// Puts subscribers in or changes them; see [`UPDATE_TERMINALS`]. Version 0: it was not there.
pub(super) const PUT_SUBSCRIBERS: &str = "\
    INSERT INTO ltkmd.subscriber AS s (shard, id, version, record) \
    SELECT n.shard, n.id, n.next, n.record \
    FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[]) AS n(shard, id, version, next, record) \
    ON CONFLICT (shard, id) DO UPDATE SET record = excluded.record, \
        version = CASE WHEN s.version = excluded.version - 1 THEN excluded.version END";

/// Takes subscribers out of whom nothing is left, at the version that they were just given.
pub(super) const DELETE_SUBSCRIBERS: &str = "\
    DELETE FROM ltkmd.subscriber s USING unnest($2::int[], $3::text[], $4::bigint[]) AS n(shard, id, version) \
    WHERE s.shard = ANY($1::int[]) AND s.shard = n.shard AND s.id = n.id AND s.version = n.version";

/// One member more.
pub(super) const INSERT_MEMBER: &str = "\
    INSERT INTO ltkmd.member (shard, service, key) VALUES ($1::int, $2::bigint, $3::bytea) ON CONFLICT DO NOTHING";

/// Members more.
pub(super) const INSERT_MEMBERS: &str = "\
    INSERT INTO ltkmd.member (shard, service, key) SELECT * FROM unnest($1::int[], $2::bigint[], $3::bytea[]) \
    ON CONFLICT DO NOTHING";

/// Members less.
pub(super) const DELETE_MEMBERS: &str = "\
    DELETE FROM ltkmd.member m USING unnest($2::int[], $3::bigint[], $4::bytea[]) AS n(shard, service, key) \
    WHERE m.shard = ANY($1::int[]) AND m.shard = n.shard AND m.service = n.service AND m.key = n.key";

/// One message more, or one whose id has come again.
pub(super) const PUT_MESSAGE: &str = "\
    INSERT INTO ltkmd.message (shard, id, key) VALUES ($1::int, $2::text, $3::bytea) \
    ON CONFLICT (id, shard) DO UPDATE SET key = excluded.key";

/// Messages more; each id once in a shard.
pub(super) const PUT_MESSAGES: &str = "\
    INSERT INTO ltkmd.message (shard, id, key) SELECT * FROM unnest($1::int[], $2::text[], $3::bytea[]) \
    ON CONFLICT (id, shard) DO UPDATE SET key = excluded.key";

/// Messages less: those that have not become another terminal's.
pub(super) const DELETE_MESSAGES: &str = "\
    DELETE FROM ltkmd.message m USING unnest($2::int[], $3::text[], $4::bytea[]) AS n(shard, id, key) \
    WHERE m.shard = ANY($1::int[]) AND m.shard = n.shard AND m.id = n.id AND m.key = n.key";

/// Whose messages these are, in whatever shard. The one statement here that asks everywhere.
#[doc(hidden)]
pub const READ_MESSAGES: &str = "SELECT id, key FROM ltkmd.message WHERE id = ANY($1::text[])";

/// Counters follow. Those of a job that was never written, or is forgotten, are not there: nobody counts it.
pub(super) const UPDATE_TALLY: &str = "\
    UPDATE ltkmd.tally t SET n0 = t.n0 + n.d0, n1 = t.n1 + n.d1, n2 = t.n2 + n.d2, n3 = t.n3 + n.d3, \
        n4 = t.n4 + n.d4, n5 = t.n5 + n.d5, n6 = t.n6 + n.d6, n7 = t.n7 + n.d7, n8 = t.n8 + n.d8 \
    FROM unnest($2::int[], $3::smallint[], $4::bigint[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[], \
        $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) \
        AS n(shard, kind, a, b, d0, d1, d2, d3, d4, d5, d6, d7, d8) \
    WHERE t.shard = ANY($1::int[]) AND t.shard = n.shard AND t.kind = n.kind AND t.a = n.a AND t.b = n.b";

/// A job's cursors move on from where they were read.
pub(super) const MOVE_CURSORS: &str = "\
    UPDATE ltkmd.job_shard j SET cursor = n.new, step = CASE WHEN j.cursor = n.old THEN j.step + 1 END \
    FROM unnest($3::int[], $4::bytea[], $5::bytea[]) AS n(shard, old, new) \
    WHERE j.shard = ANY($1::int[]) AND j.shard = n.shard AND j.job = $2::bigint";

/// The next members of service `$4` in the shards `$2`, from the keys `$3` upwards, at most `$5`.
pub(super) const PAGE_UP: &str = "\
    SELECT r.key, r.version, r.credential, r.state \
    FROM unnest($2::int[], $3::bytea[]) WITH ORDINALITY AS p(shard, cursor, place) \
    CROSS JOIN LATERAL (SELECT t.key, t.version, t.credential, t.state FROM ltkmd.member m \
        JOIN ltkmd.terminal t ON t.shard = m.shard AND t.key = m.key \
        WHERE m.shard = ANY($1::int[]) AND t.shard = ANY($1::int[]) AND m.shard = p.shard AND m.service = $4::bigint \
            AND m.key >= p.cursor ORDER BY m.key LIMIT $5::bigint) AS r \
    ORDER BY p.place, r.key LIMIT $5::bigint";

/// See [`PAGE_UP`]: downwards.
pub(super) const PAGE_DOWN: &str = "\
    SELECT r.key, r.version, r.credential, r.state \
    FROM unnest($2::int[], $3::bytea[]) WITH ORDINALITY AS p(shard, cursor, place) \
    CROSS JOIN LATERAL (SELECT t.key, t.version, t.credential, t.state FROM ltkmd.member m \
        JOIN ltkmd.terminal t ON t.shard = m.shard AND t.key = m.key \
        WHERE m.shard = ANY($1::int[]) AND t.shard = ANY($1::int[]) AND m.shard = p.shard AND m.service = $4::bigint \
            AND m.key <= p.cursor ORDER BY m.key DESC LIMIT $5::bigint) AS r \
    ORDER BY p.place, r.key DESC LIMIT $5::bigint";

/// Terminals that were due for a look by `$2`, the earliest first, at most `$3`.
pub(super) const DUE_LOOKS: &str = "\
    SELECT key, look FROM ltkmd.terminal WHERE shard = ANY($1::int[]) AND look <= $2::bigint ORDER BY look LIMIT $3::bigint";

/// See [`DUE_LOOKS`]: whose turn by SMS has come.
pub(super) const DUE_TURNS: &str = "\
    SELECT key, turn FROM ltkmd.terminal WHERE shard = ANY($1::int[]) AND turn <= $2::bigint ORDER BY turn LIMIT $3::bigint";

/// The statements that requests, pages, resends and verification messages are made of, each with arguments about one
/// shard: what a distributed database has to do in one place.
#[doc(hidden)]
pub const HOT_STATEMENTS: &[(&str, &str, &str)] = &[
    ("reading terminals", READ_TERMINALS, "ARRAY[5], ARRAY[5], ARRAY['\\x05'::bytea]"),
    ("reading subscribers", READ_SUBSCRIBERS, "ARRAY[5], ARRAY[5], ARRAY['a']"),
    ("reading the revision", READ_REVISION, ""),
    ("the guard", GUARD, "1, 'a', 1, ARRAY[1], 0, NULL, NULL"),
    (
        "changing terminals",
        UPDATE_TERMINALS,
        "ARRAY[5], ARRAY[5], ARRAY['\\x05'::bytea], ARRAY[1::bigint], ARRAY[true], ARRAY[NULL::bytea], \
         ARRAY['\\x01'::bytea], ARRAY[1::bigint], ARRAY[NULL::bigint]",
    ),
    ("a member more", INSERT_MEMBER, "5, 1, '\\x05'"),
    ("members less", DELETE_MEMBERS, "ARRAY[5], ARRAY[5], ARRAY[1::bigint], ARRAY['\\x05'::bytea]"),
    ("a message more", PUT_MESSAGE, "5, 'a', '\\x05'"),
    ("messages less", DELETE_MESSAGES, "ARRAY[5], ARRAY[5], ARRAY['a'], ARRAY['\\x05'::bytea]"),
    (
        "counters",
        UPDATE_TALLY,
        "ARRAY[5], ARRAY[5], ARRAY[0::smallint], ARRAY[0::bigint], ARRAY[0], ARRAY[1::bigint], ARRAY[1::bigint], \
         ARRAY[1::bigint], ARRAY[1::bigint], ARRAY[1::bigint], ARRAY[1::bigint], ARRAY[1::bigint], ARRAY[1::bigint], \
         ARRAY[1::bigint]",
    ),
    ("cursors", MOVE_CURSORS, "ARRAY[5], 1, ARRAY[5], ARRAY['\\x05'::bytea], ARRAY[NULL::bytea]"),
    ("a page", PAGE_UP, "ARRAY[5], ARRAY[5], ARRAY['\\x05'::bytea], 1, 10"),
    ("a page back", PAGE_DOWN, "ARRAY[5], ARRAY[5], ARRAY['\\x05'::bytea], 1, 10"),
];
