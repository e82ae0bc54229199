/** Drives block-ledger.c: an initiator on libiscsi that writes self-describing blocks and knows what must be there. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Test } from 'tap';

/** A ledger's page with its seed; an entry: acknowledged, pending, last generation, 32 bits each. */
const headerBytes = 4096;
const entryBytes = 12;
const nothingPending = 0xffffffff;
/** What block-ledger.c exits with. */
const outcomes = ['done', 'wrong use', 'lost', 'refused', 'wrong data', 'stalled'] as const;
/** More than any one run here takes on a busy machine. */
const runLimitMs = 50_000;

export interface LedgerRun {
  outcome: (typeof outcomes)[number] | 'killed';
  /** Commands that were acknowledged. */
  commands: number;
  /** Sense key, code and qualifier of the refusal. */
  sense: number[];
  /** What it complained of. */
  complaint: string;
}

/** Compiles the initiator into a directory of the test. */
export async function compileLedger(directory: string): Promise<string> {
  const program = join(directory, 'block-ledger');
  const source = join(import.meta.dirname, 'block-ledger.c');
  await execa('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source, '-liscsi']);
  return program;
}

export class BlockLedger {
  readonly path: string;
  readonly blockCount: number;
  readonly #t: Test;
  readonly #program: string;

  private constructor(t: Test, program: string, path: string, blockCount: number) {
    this.#t = t;
    this.#program = program;
    this.path = path;
    this.blockCount = blockCount;
  }

  /** Of a new volume, all zeros. Runs of it end with the test. */
  static async create(t: Test, program: string, path: string, blockCount: number): Promise<BlockLedger> {
    const bytes = Buffer.alloc(headerBytes + blockCount * entryBytes);
    randomBytes(8).copy(bytes);
    for (let block = 0; block < blockCount; block++) {
      bytes.writeUInt32LE(nothingPending, headerBytes + block * entryBytes + 4);
    }
    const file = await open(path, 'wx');
    await file.writeFile(bytes);
    await file.close();
    return new BlockLedger(t, program, path, blockCount);
  }

  /** Random writes, unmaps and flushes until the time is over, a command is refused or the connection is lost. */
  random(url: string, options: { seconds: number; depth?: number; first?: number; count?: number }) {
    const { first = 0, count = this.blockCount, depth = 16, seconds } = options;
    return this.#run(url, ['random', first, count, depth, seconds]);
  }

  /** Writes every block of a range once, in order. */
  fill(url: string, first = 0, count = this.blockCount) {
    return this.#run(url, ['fill', first, count, 8]);
  }

  unmap(url: string, first = 0, count = this.blockCount) {
    return this.#run(url, ['unmap', first, count, 1]);
  }

  /** Reads it all back. Every block must have what was acknowledged last, or what was sent and never answered. */
  verify(url: string, first = 0, count = this.blockCount) {
    return this.#run(url, ['verify', first, count]);
  }

  async #run(url: string, command: (string | number)[]): Promise<LedgerRun> {
    const initiator = `iqn.2026-11.io.weft.test:${process.pid}-${randomBytes(4).toString('hex')}`;
    const child = execa(this.#program, [url, this.path, initiator, ...command.map(String)], {
      stdin: 'ignore',
      reject: false,
      timeout: runLimitMs,
      killSignal: 'SIGKILL',
    });
    this.#t.teardown(() => child.kill('SIGKILL'));
    const result = await child;
    const facts = result.stdout === '' ? {} : (JSON.parse(result.stdout) as Partial<LedgerRun>);
    return {
      outcome: result.exitCode === undefined ? 'killed' : (outcomes[result.exitCode] ?? 'killed'),
      commands: facts.commands ?? 0,
      sense: facts.sense ?? [],
      complaint: result.stderr,
    };
  }
}
