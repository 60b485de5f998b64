// Emmett on PostgreSQL: single-event appends with an expected version.
// Usage: node append_emmett.mjs postgresql://postgres@localhost:5432/postgres WRITERS [SECONDS]
// PRODGY_PEERS_NODE names the folder in which its packages were installed:
// npm install @event-driven-io/emmett@0.42.0 @event-driven-io/emmett-postgresql@0.42.0
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const installed = createRequire(join(process.env.PRODGY_PEERS_NODE, 'package.json'));
const { getPostgreSQLEventStore } = installed('@event-driven-io/emmett-postgresql');
const [url, writers, seconds = '5'] = process.argv.slice(2);
const store = getPostgreSQLEventStore(url);
await store.schema.migrate();

async function append(milliseconds) {
  const start = performance.now();
  const lat = [];
  await Promise.all(Array.from({ length: Number(writers) }, async () => {
    const stream = `s-${randomUUID()}`;
    let version;
    while (performance.now() - start < milliseconds) {
      const t = performance.now();
      const result = await store.appendToStream(stream, [{ type: 'T', data: { k: 'v'.repeat(200) } }],
        version === undefined ? undefined : { expectedStreamVersion: version });
      version = result.nextExpectedStreamVersion;
      lat.push(performance.now() - t);
    }
  }));
  return [lat.sort((a, b) => a - b), (performance.now() - start) / 1000];
}

await append(1000); // its connections are open, and its code is compiled
const [lat, took] = await append(Number(seconds) * 1000);
console.log(JSON.stringify({ peer: 'emmett-postgresql', writers: Number(writers), appends_per_s: Math.round(lat.length / took),
  p50_ms: +lat[lat.length >> 1].toFixed(2), p99_ms: +lat[Math.floor(lat.length * 0.99)].toFixed(2) }));
await store.close();
