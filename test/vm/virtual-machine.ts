/**
 * A machine with the Linux kernel's iSCSI initiator, emulated by QEMU. The host's 127.0.0.1 is 10.0.2.2 to it.
 * The test runs scripts in it, several at a time, through a virtio port; its kernel log is kept in build/test-results.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import type { Test } from 'tap';
import { eventually } from '../system/eventually.ts';

const root = resolve(import.meta.dirname, '../..');
const results = join(root, 'build/test-results');
/** Debian packages are unpacked the first time. */
const imageLimitMs = 900_000;
/** Fifteen seconds on an idle machine. */
const bootLimitMs = 180_000;
const scriptLimitSeconds = 240;
/** For `eventually`: to start a script costs an emulated processor a tenth of a second. */
export const guestPollMs = 1000;

/** A test that is killed takes its machine with it. */
const lifeline = ['--pdeathsig', 'KILL'];

/** Where the guest finds the host's 127.0.0.1. */
export const hostSeenFromGuest = '10.0.2.2';
export const kernelInitiator = 'iqn.2026-11.io.weft.test:kernel';

export interface Answer {
  exitCode: number;
  /** stdout and stderr. */
  output: string;
}

export interface MachineOptions {
  /** Of its kernel log's file. */
  name: string;
  cpus?: number;
  memoryMiB?: number;
  /** Raw images it sees as /dev/vdb, /dev/vdc, …; what it writes there is lost. */
  disks?: readonly string[];
}

export class VirtualMachine {
  /** What its kernel said, from the first line on. */
  readonly kernelLog: string;
  readonly #process: ChildProcess;
  readonly #port: Socket;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #lastNumber = 0;

  private constructor(kernelLog: string, process: ChildProcess, port: Socket) {
    this.kernelLog = kernelLog;
    this.#process = process;
    this.#port = port;
  }

  /** Ready to run scripts. Ends with the test. */
  static async boot(t: Test, options: MachineOptions): Promise<VirtualMachine> {
    const image = (await execa(join(import.meta.dirname, 'build-image'), { timeout: imageLimitMs })).stdout;
    const directory = await mkdtemp(join(tmpdir(), 'weft-vm-'));
    t.teardown(() => rm(directory, { recursive: true, force: true }));
    await mkdir(results, { recursive: true });
    const kernelLog = join(results, `kernel-${options.name}.log`);
    await writeFile(kernelLog, '');
    const initrd = join(directory, 'initrd');
    const first = await readFile(join(image, 'initrd'));
    // An archive that is not compressed begins at a multiple of 4.
    const padding = Buffer.alloc(-first.length & 3);
    await writeFile(initrd, Buffer.concat([first, padding, await archive('guest-init')]));
    const command = [
      ...lifeline,
      'qemu-system-x86_64',
      ...emulatorOptions(options, image, directory, kernelLog),
    ];
    const emulator = spawn('setpriv', command, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
    let complaints = '';
    emulator.stderr.on('data', (piece: Buffer) => {
      complaints += piece;
    });
    t.teardown(() => end(emulator));
    const port = await eventually('the machine has its port', 10_000, async () => {
      if (emulator.exitCode !== null) return null;
      return await connected(join(directory, 'port'));
    }).catch((error) => {
      throw new Error(`${error.message} ${complaints}`);
    });
    const machine = new VirtualMachine(kernelLog, emulator, port);
    await machine.#listen();
    return machine;
  }

  /** Runs it with `bash -e`; answers with what it printed. Throws that when it failed. */
  async run(script: string, options: { limitSeconds?: number } = {}): Promise<string> {
    const { exitCode, output } = await this.attempt(script, options);
    if (exitCode !== 0) throw new Error(`exit code ${exitCode}: ${script.trim()}\n${output}`);
    return output;
  }

  /** As `run`, whatever its exit code is (124: it took longer than its limit). */
  async attempt(script: string, options: { limitSeconds?: number } = {}): Promise<Answer> {
    const number = ++this.#lastNumber;
    const limitSeconds = options.limitSeconds ?? scriptLimitSeconds;
    const answered = new Promise<Answer>((done) => this.#waiting.set(number, done));
    this.#port.write(`${number} ${limitSeconds} ${Buffer.from(script).toString('base64')}\n`);
    // The guest's own limit ends first, unless a process hangs in the kernel or the machine is gone.
    const timer = setTimeout(
      () => {
        this.#answer(number, { exitCode: -1, output: 'no answer from the machine' });
      },
      limitSeconds * 1000 + 60_000,
    );
    const answer = await answered;
    clearTimeout(timer);
    return answer;
  }

  /** Into its kernel log, to tell what came before from what comes after. */
  async note(text: string): Promise<void> {
    await this.run(`echo '${text}' >/dev/kmsg`);
  }

  async kernelMessages(): Promise<string[]> {
    return (await readFile(this.kernelLog, 'utf8')).split(/\r?\n/);
  }

  async #listen(): Promise<void> {
    const { promise: ready, resolve: isReady, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      reject(new Error(`the machine did not come up within ${bootLimitMs / 1000} s; see ${this.kernelLog}`));
    }, bootLimitMs);
    this.#waiting.set(0, () => isReady());
    this.#process.once('exit', () => {
      reject(new Error(`the machine ended; see ${this.kernelLog}`));
      for (const number of this.#waiting.keys()) {
        this.#answer(number, { exitCode: -1, output: 'the machine ended' });
      }
    });
    createInterface({ input: this.#port }).on('line', (line) => {
      const [number, exitCode, output = ''] = line.split(' ');
      this.#answer(Number(number), {
        exitCode: Number(exitCode),
        output: Buffer.from(output, 'base64').toString('utf8'),
      });
    });
    this.#port.on('error', () => {});
    await ready;
    clearTimeout(timer);
  }

  #answer(number: number, answer: Answer): void {
    const done = this.#waiting.get(number);
    this.#waiting.delete(number);
    done?.(answer);
  }
}

function emulatorOptions(
  options: MachineOptions,
  image: string,
  directory: string,
  kernelLog: string,
): string[] {
  const disks = [join(image, 'root.img'), ...(options.disks ?? [])];
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max'],
    ...['-smp', String(options.cpus ?? 1), '-m', String(options.memoryMiB ?? 768)],
    ...['-kernel', join(image, 'vmlinuz'), '-initrd', join(directory, 'initrd')],
    ...['-append', 'console=ttyS0 loglevel=7 panic=-1 net.ifnames=0 apparmor=0 mitigations=off'],
    ...['-serial', `file:${kernelLog}`],
    // What the machine writes goes to files in the directory that QEMU has unlinked.
    ...disks.flatMap((disk) => ['-drive', `file=${disk},format=raw,if=virtio,snapshot=on`]),
    ...['-nic', 'user,model=virtio-net-pci', '-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
    ...['-chardev', `socket,id=port,path=${join(directory, 'port')},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=port,name=weft'],
  ];
}

/** A file of this directory as the kernel takes it behind its first file system. */
async function archive(name: string): Promise<Buffer> {
  const { stdout } = await execa('busybox', ['cpio', '-o', '-H', 'newc'], {
    cwd: import.meta.dirname,
    input: `${name}\n`,
    encoding: 'buffer',
  });
  return Buffer.from(stdout);
}

async function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, 'connect');
  return socket;
}

async function end(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  const ended = once(process, 'exit');
  process.kill('SIGKILL');
  await ended;
}
