/** The managed plugin in a private Docker engine: built once, made, set and enabled; and its processes, to be killed. */
import { resolve } from 'node:path';
import { execa } from 'execa';
import { eventually } from './eventually.ts';
import { type Process, processes } from './leftovers.ts';
import type { PrivateDockerd } from './private-dockerd.ts';
import type { WeftdProcess } from './weftd-process.ts';

const root = resolve(import.meta.dirname, '../..');
/** The first time Debian packages are unpacked. */
const buildLimitMs = 1_500_000;
/** The engine packs it: ten seconds on an idle machine. */
const createLimitMs = 300_000;

export const pluginName = 'weft';

/** 'nutanix': the settings have the names the Nutanix plugin uses for them. */
export type SettingNames = 'weft' | 'nutanix';

export async function installPlugin(
  dockerd: PrivateDockerd,
  weftd: WeftdProcess,
  names: SettingNames,
): Promise<WeftPlugin> {
  await execa(resolve(root, 'scripts/build-plugin'), ['build/plugin'], { cwd: root, timeout: buildLimitMs });
  const created = await dockerd.run(
    'docker',
    ['plugin', 'create', pluginName, resolve(root, 'build/plugin')],
    {
      timeout: createLimitMs,
    },
  );
  if (created.exitCode !== 0) throw new Error(`docker plugin create: ${created.stderr}`);
  const { token } = await (await weftd.client()).createToken({ name: 'plugin', role: 'plugin' });
  const settings = {
    weft: [`WEFT_URL=${weftd.url}`, `WEFT_TOKEN=${token}`, 'WEFT_LOG_LEVEL=debug'],
    nutanix: [
      `PRISM_IP=${new URL(weftd.url).host}`,
      'PRISM_USERNAME=plugin',
      `PRISM_PASSWORD=${token}`,
      `DATASERVICES_IP=${weftd.portal}`,
      'DEFAULT_CONTAINER=default',
    ],
  }[names];
  await dockerd.docker('plugin', 'set', pluginName, ...settings);
  await dockerd.docker('plugin', 'enable', pluginName);
  const id = await dockerd.docker('plugin', 'inspect', '-f', '{{.Id}}', pluginName);
  return new WeftPlugin(dockerd, id, settings[0]!);
}

export class WeftPlugin {
  readonly #dockerd: PrivateDockerd;
  readonly #id: string;
  readonly #setting: string;

  /** `setting`: one of its environment that no other plugin's has. */
  constructor(dockerd: PrivateDockerd, id: string, setting: string) {
    this.#dockerd = dockerd;
    this.#id = id;
    this.#setting = setting;
  }

  /** Where the volumes are mounted, as the host sees it. */
  get mountDirectory(): string {
    return `${this.#dockerd.directory}/data/plugins/${this.#id}/propagated-mount`;
  }

  /** Every process in it. This plugin's, and of no other on this machine: its environment names our weftd. */
  async processes(): Promise<Process[]> {
    const mark = `\0${this.#setting}\0`;
    return (await processes()).filter(({ environment }) => `\0${environment}`.includes(mark));
  }

  async kill9Node(): Promise<void> {
    await this.#kill9((process) => process.commandLine.endsWith('/opt/weft/dist/plugin/main.js'));
  }

  /** The plugin's first process: all the others, with what attaches volumes, die with it. */
  async kill9Init(): Promise<void> {
    await this.#kill9((process) => process.commandLine.startsWith('/usr/bin/tini '));
  }

  async #kill9(isIt: (process: Process) => boolean): Promise<void> {
    const found = (await this.processes()).filter(isIt);
    if (found.length !== 1) throw new Error(`expected one such process of the plugin, found ${found.length}`);
    const { pid } = found[0]!;
    process.kill(pid, 'SIGKILL');
    await eventually('the killed process is gone, and another has come', 30_000, async () => {
      const now = (await this.processes()).filter(isIt);
      return now.length === 1 && now[0]!.pid !== pid;
    });
  }
}
