-- The role and the database of a cluster. As a superuser, once:
--     psql -f database.sql
-- Other names: psql -v role=NAME -v database=NAME -f database.sql
-- Then give the role its password, and each node the same one in store.store_password_file: \password ltkmd
\set ON_ERROR_STOP on
\if :{?role}
\else
    \set role ltkmd
\endif
\if :{?database}
\else
    \set database ltkmd
\endif

-- No superuser, and nothing that it could hand on.
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
-- The daemon's own collation of texts is octet by octet; the database's does not matter.
CREATE DATABASE :"database" TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
-- CREATE, for the first daemon makes the schema ltkmd, which the role owns.
GRANT CONNECT, CREATE ON DATABASE :"database" TO :"role";
-- So that `ltkmd ctl cluster` sees standbys and how far they are behind. May be left out.
GRANT pg_monitor TO :"role";

-- A distributed database, on the coordinator and with the same role, database and extension on each worker:
--     \c ltkmd
--     CREATE EXTENSION citus;
--     SELECT citus_set_coordinator_host('db1.example.com', 5432);
--     SELECT citus_add_node('worker1.example.com', 5432);
--     SELECT citus_add_node('worker2.example.com', 5432);
-- The first daemon spreads its tables when it makes the schema: the workers have to be there before.
--
-- A synchronous standby, so that a failover forgets no commit (docs/cluster.md), in postgresql.conf of each server:
--     synchronous_standby_names = 'ANY 1 (db1, db2, db3)'
--     synchronous_commit = on
--     primary_conninfo = 'host=... application_name=db1'
