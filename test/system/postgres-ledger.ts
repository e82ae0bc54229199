/**
 * Writers that move money between accounts and note each movement in a ledger, and that remember which movements the
 * database has acknowledged. Whatever happens to the database: what was acknowledged must be there, unharmed, once.
 */
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { PostgresClient } from './postgres-client.ts';

const accountCount = 50;
const writerCount = 4;
const retryMs = 100;

export class PostgresLedger {
  readonly #port: number;
  /** Movements the database has acknowledged. */
  readonly acknowledged = new Set<number>();
  /** Movements it was asked for, whatever came of it. */
  readonly #asked = new Set<number>();
  #next = 1;
  #isStopping = false;
  #writers: Promise<void>[] = [];

  constructor(port: number) {
    this.#port = port;
  }

  async create(): Promise<void> {
    const client = await PostgresClient.connect(this.#port);
    await client.query(`
      create table account (id int primary key, balance bigint not null);
      insert into account select id, 0 from generate_series(0, ${accountCount - 1}) id;
      create table ledger (id bigint primary key, giver int, taker int, amount bigint, body text, sum text);
      create index on ledger (sum)`);
    client.close();
  }

  start(): void {
    this.#isStopping = false;
    this.#writers = Array.from({ length: writerCount }, () => this.#write());
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#writers);
  }

  /** What is wrong with the database; empty when every promise was kept. */
  async verify(): Promise<string[]> {
    const wrong: string[] = [];
    const client = await PostgresClient.connect(this.#port, 'postgres', 30_000);
    try {
      // Before the snapshot is taken: what is acknowledged later need not be in it.
      const acknowledged = [...this.acknowledged];
      await client.query('begin isolation level repeatable read');
      const rows = await client.query('select id, giver, taker, amount, md5(body), sum from ledger');
      const found = new Set(rows.map(([id]) => Number(id)));
      if (found.size !== rows.length) wrong.push('a movement is there twice');
      const lost = acknowledged.filter((id) => !found.has(id));
      if (lost.length > 0)
        wrong.push(`lost: ${lost.slice(0, 10)} (${lost.length} of ${acknowledged.length})`);
      for (const [id, giver, taker, amount, sum, expected] of rows) {
        const movement = movementOf(Number(id));
        if (!this.#asked.has(Number(id))) wrong.push(`nobody asked for ${id}`);
        const { body, ...numbers } = movement;
        const same = sum === expected && sum === md5(body);
        if (!same || `${giver},${taker},${amount}` !== Object.values(numbers).join())
          wrong.push(`${id} is damaged`);
      }
      // By the index and by the table: both must tell the same.
      const [[byIndex]] = (await client.query(
        `set enable_seqscan = off; select count(*) from ledger where id between 0 and 1000000000`,
      )) as [[string]];
      if (Number(byIndex) !== rows.length)
        wrong.push(`the index has ${byIndex} movements, the table ${rows.length}`);
      const differing = await client.query(`
        select account.id from account left join
          (select id, sum(change) change from
            (select giver id, -amount change from ledger union all select taker, amount from ledger) each
           group by id) total using (id)
        where balance <> coalesce(change, 0)`);
      if (differing.length > 0) wrong.push(`balances differ: ${differing.slice(0, 10)}`);
    } finally {
      client.close();
    }
    return wrong;
  }

  async #write(): Promise<void> {
    while (!this.#isStopping) {
      const client = await PostgresClient.connect(this.#port).catch(() => null);
      if (client === null) {
        await delay(retryMs);
        continue;
      }
      try {
        while (!this.#isStopping) await this.#move(client);
      } catch {
        // The database is away, or was while this was under way: whether it is there, nobody promised.
      }
      client.close();
    }
  }

  async #move(client: PostgresClient): Promise<void> {
    const id = this.#next++;
    const { giver, taker, amount, body } = movementOf(id);
    // Always the lower account first: writers that wait for each other in a circle would be told to try again.
    const changes = [
      { account: giver, change: -amount },
      { account: taker, change: amount },
    ].sort((a, b) => a.account - b.account);
    const updates = changes.map(({ account, change }) => {
      return `update account set balance = balance + ${change} where id = ${account};`;
    });
    this.#asked.add(id);
    await client.query(`${updates.join(' ')}
      insert into ledger values (${id}, ${giver}, ${taker}, ${amount}, '${body}', '${md5(body)}')`);
    this.acknowledged.add(id);
  }
}

/** Everything about a movement follows from its number. */
function movementOf(id: number): { giver: number; taker: number; amount: number; body: string } {
  const hash = createHash('sha256').update(String(id)).digest();
  const giver = hash[0]! % accountCount;
  const taker = (giver + 1 + (hash[1]! % (accountCount - 1))) % accountCount;
  const body = hash.toString('hex').repeat(1 + (hash[2]! % 40));
  return { giver, taker, amount: 1 + hash.readUInt16BE(3), body };
}

function md5(text: string): string {
  return createHash('md5').update(text).digest('hex');
}
