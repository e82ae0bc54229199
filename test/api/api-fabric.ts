/** A whole control plane over real HTTP, on a data path that is none. */
import { pino } from 'pino';
import { WeftClient } from '../../daemon/api/client.ts';
import type { ApiServices } from '../../daemon/api/route.ts';
import type { Role, Volume, VolumeCreate } from '../../daemon/api/schema.ts';
import { type ApiServer, createApiServer } from '../../daemon/api/server.ts';
import { Catalog } from '../../daemon/control/catalog.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { ManualClock } from '../control/manual-clock.ts';
import { testSecrets } from '../control/test-secrets.ts';
import { MemoryControlState, MemoryControlStore } from '../simulation/memory-control-store.ts';
import { FakeVolumeHost } from './fake-volume-host.ts';

export const adminToken = 'admin-token-for-tests-0123456789abcdef';

export class ApiFabric {
  readonly state = new MemoryControlState();
  readonly clock = new ManualClock();
  /** What the background reported. */
  readonly faults: Error[] = [];
  readonly logLines: string[] = [];
  host = new FakeVolumeHost();
  catalog!: Catalog;
  url = '';
  #server: ApiServer | null = null;

  static async start(t: { teardown(end: () => Promise<void>): void }): Promise<ApiFabric> {
    const fabric = new ApiFabric();
    await fabric.start();
    await fabric.catalog.tokens.replace('admin', 'admin', adminToken);
    t.teardown(() => fabric.stop());
    return fabric;
  }

  async start(): Promise<void> {
    const store = new MemoryControlStore(this.state);
    const { host, clock } = this;
    const onFault = (error: Error) => this.faults.push(error);
    this.catalog = new Catalog({ store, host, clock, random: systemRandom, secrets: testSecrets, onFault });
    await this.catalog.start();
    const services: ApiServices = {
      catalog: this.catalog,
      clock,
      node: {
        id: '5c5b2a0e-5f0e-4b57-9d0a-111111111111',
        name: 'node-1',
        version: '0.0.1',
        startedAt: new Date(clock.nowMs()).toISOString(),
        state: () => 'ready',
      },
    };
    const log = pino({ level: 'debug' }, { write: (line) => void this.logLines.push(line) });
    this.#server = createApiServer(services, log);
    const { host: address, port } = await this.#server.listen('127.0.0.1', 0);
    this.url = `http://${address}:${port}`;
  }

  async stop(): Promise<void> {
    await this.#server?.close();
    await this.catalog.stop();
  }

  /** A new process on the same control store and data; sessions and timers are gone. */
  async crash(): Promise<void> {
    await this.#server?.close();
    this.catalog.trash.stop();
    const data = this.host.data;
    this.host = new FakeVolumeHost();
    for (const key of data) this.host.data.add(key);
    await this.start();
  }

  client(token: string = adminToken): WeftClient {
    return new WeftClient({ url: this.url, token, timeoutMs: 10_000 });
  }

  async clientAs(name: string, role: Role): Promise<WeftClient> {
    const { token } = await this.client().createToken({ name, role });
    return this.client(token);
  }

  create(name: string, more: Omit<VolumeCreate, 'name'> = {}): Promise<Volume> {
    return this.client().createVolume({ name, sizeBytes: 1_073_741_824, ...more });
  }

  /** Everything the control store holds, to see that nothing changed. */
  snapshot(): unknown {
    return [...this.state.documents].sort(([a], [b]) => (a < b ? -1 : 1));
  }
}
