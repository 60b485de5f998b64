-- pgbench's script: one finished row a transaction, into a table as the log's. As there, streams have
-- ten events, and ids grow with the time: each client (up to 100) counts its own rows of this turn.
\set number :number + 1
\set stream (:turn * 1000000 + :number / 10) * 100 + :client_id
\set command (:turn * 1000000 + :number) * 100 + :client_id
\set sequence :number % 10 + 1
INSERT INTO bare_log (aggregate_type, aggregate_id, sequence, event_type, command, envelope)
VALUES ('knowledge_base', lpad(to_hex(:stream::bigint), 36, '0'), :sequence, 'knowledge_base.changed.v1',
        lpad(to_hex(:command::bigint), 32, '0')::uuid, :envelope);
