/** The promises of `daemon/control/control-store.ts`, held against one engine. */
import t from 'tap';
import type { ControlChange, ControlStore } from '../../daemon/control/control-store.ts';

export interface Engine {
  name: string;
  /** A store at a place that only this name leads to: opening it twice finds what was put there before. */
  open(place: string): Promise<ControlStore>;
}

export function controlStoreConformance(engine: Engine): void {
  t.test(engine.name, async (t) => {
    let place = 0;
    const fresh = async () => {
      const store = await engine.open(`fresh-${place++}`);
      t.teardown(() => store.close());
      return store;
    };

    t.test('what was put is got, with the revision it was put at', async (t) => {
      const store = await fresh();
      t.equal(await store.get('a'), null);
      const value = { text: 'ü\u0000', list: [1, null, true], deep: { n: 1.5 } };
      const revision = await put(store, 'a', value);
      t.strictSame(await store.get('a'), { key: 'a', value, revision });
      t.ok(revision !== null && revision >= 1);
    });

    t.test('revisions rise, whatever was changed', async (t) => {
      const store = await fresh();
      const first = await put(store, 'a', 1);
      const second = await put(store, 'b', 1);
      const third = await store.transact({ conditions: [], puts: [], deletes: ['a'] });
      t.ok(first !== null && second !== null && third !== null && first < second && second < third);
    });

    t.test('a list holds the prefix, all of it and nothing else, in order', async (t) => {
      const store = await fresh();
      for (const key of ['v/b', 'v/a', 'v/a/x', 'v', 'w/a', 'V/a', 'v/é', 'v/😀', 'v/\uffee', 'v0']) {
        await put(store, key, { key });
      }
      const keys = (await store.list('v/')).map((document) => document.key);
      t.strictSame(keys, ['v/a', 'v/a/x', 'v/b', 'v/é', 'v/\uffee', 'v/😀']);
      t.equal((await store.list('nothing')).length, 0);
      t.equal((await store.list('')).length, 10);
    });

    t.test('a prefix with wildcards is only itself', async (t) => {
      const store = await fresh();
      for (const key of ['a%b', 'axb', 'a_b', 'a*b']) await put(store, key, 1);
      for (const key of ['a%', 'a_', 'a*']) {
        t.strictSame(
          (await store.list(key)).map((document) => document.key),
          [`${key}b`],
        );
      }
    });

    t.test('a transaction whose condition fails changes nothing', async (t) => {
      const store = await fresh();
      const revision = (await put(store, 'a', 1)) ?? 0;
      const wrong = [
        [{ key: 'a', revision: revision + 1 }],
        [{ key: 'a', revision: 0 }],
        [{ key: 'b', revision }],
        [
          { key: 'a', revision },
          { key: 'b', revision: 1 },
        ],
      ];
      for (const conditions of wrong) {
        const puts = [
          { key: 'a', value: 2 },
          { key: 'c', value: 2 },
        ];
        t.equal(await store.transact({ conditions, puts, deletes: [] }), null);
        t.equal(await store.transact({ conditions, puts: [], deletes: ['a'] }), null);
      }
      t.strictSame(await store.list(''), [{ key: 'a', value: 1, revision }]);
    });

    t.test('a transaction whose conditions hold changes everything at one revision', async (t) => {
      const store = await fresh();
      const before = (await put(store, 'a', 1)) ?? 0;
      await put(store, 'gone', 1);
      const conditions = [
        { key: 'a', revision: before },
        { key: 'new', revision: 0 },
      ];
      const puts = [
        { key: 'a', value: 2 },
        { key: 'new', value: 3 },
      ];
      const revision = await store.transact({ conditions, puts, deletes: ['gone', 'never'] });
      t.strictSame(await store.list(''), [
        { key: 'a', value: 2, revision },
        { key: 'new', value: 3, revision },
      ]);
    });

    t.test('of many that compare and set one document, one wins each round', async (t) => {
      const store = await fresh();
      await put(store, 'counter', 0);
      const increment = async () => {
        for (;;) {
          const found = await store.get('counter');
          const done = await store.transact({
            conditions: [{ key: 'counter', revision: found?.revision ?? 0 }],
            puts: [{ key: 'counter', value: (found?.value as number) + 1 }],
            deletes: [],
          });
          if (done !== null) return;
        }
      };
      await Promise.all(Array.from({ length: 16 }, increment));
      t.equal((await store.get('counter'))?.value, 16);
    });

    t.test('watchers hear of changes below their prefix, in order, before the change resolves', async (t) => {
      const store = await fresh();
      const heard: ControlChange[] = [];
      const stop = store.watch('v/', (changes) => heard.push(...changes));
      const first = await put(store, 'v/a', { n: 1 });
      t.strictSame(heard, [{ key: 'v/a', value: { n: 1 }, revision: first }]);
      await put(store, 'w/a', 1);
      const puts = [{ key: 'v/b', value: 2 }];
      const second = await store.transact({ conditions: [], puts, deletes: ['v/a', 'w/a'] });
      await store.transact({ conditions: [{ key: 'v/b', revision: 0 }], puts, deletes: [] });
      t.strictSame(heard.slice(1), [
        { key: 'v/b', value: 2, revision: second },
        { key: 'v/a', value: undefined, revision: second },
      ]);
      stop();
      await put(store, 'v/c', 1);
      t.equal(heard.length, 3);
    });

    t.test('readers get copies: changing one changes nobody else', async (t) => {
      const store = await fresh();
      const heard: ControlChange[] = [];
      store.watch('', (changes) => heard.push(...changes));
      const mine = { n: 1 };
      await put(store, 'a', mine);
      mine.n = 2;
      ((await store.get('a'))?.value as { n: number }).n = 3;
      (heard[0]?.value as { n: number }).n = 4;
      t.strictSame((await store.get('a'))?.value, { n: 1 });
    });

    t.test('a store opened again has what it had, and goes on counting', async (t) => {
      const first = await engine.open('again');
      const revision = (await put(first, 'a', { n: 1 })) ?? 0;
      await first.close();
      const second = await engine.open('again');
      t.teardown(() => second.close());
      t.strictSame(await second.get('a'), { key: 'a', value: { n: 1 }, revision });
      t.ok(((await put(second, 'b', 1)) ?? 0) > revision);
    });

    t.test('close finishes what was asked for and refuses what comes later', async (t) => {
      const store = await engine.open('closing');
      const asked = Array.from({ length: 20 }, (_, index) => put(store, `k${index}`, index));
      await store.close();
      t.ok((await Promise.all(asked)).every((revision) => revision !== null));
      await t.rejects(store.get('k1'), { code: 'SHUTTING_DOWN' });
      await t.rejects(put(store, 'k1', 1), { code: 'SHUTTING_DOWN' });
      await store.close();
    });

    t.test('a key that is empty or too long is a fault of the programmer', async (t) => {
      const store = await fresh();
      await t.rejects(put(store, '', 1), { name: 'AssertionFault' });
      await t.rejects(put(store, 'k'.repeat(513), 1), { name: 'AssertionFault' });
      await t.rejects(store.transact({ conditions: [], puts: [{ key: 'a', value: 1 }], deletes: ['a'] }), {
        name: 'AssertionFault',
      });
    });
  });
}

function put(store: ControlStore, key: string, value: unknown): Promise<number | null> {
  return store.transact({ conditions: [], puts: [{ key, value }], deletes: [] });
}
