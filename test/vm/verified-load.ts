/**
 * Work on a mounted file system of the virtual machine that knows what must be there: fio writes and verifies, round
 * after round, and a ledger is appended to with an fsync for every record. It goes on until it is stopped.
 */
import { eventually } from '../system/eventually.ts';
import { type Answer, guestPollMs, type VirtualMachine } from './virtual-machine.ts';

const limitSeconds = 3000;
/** fio's verify phase and what is behind it, on a busy machine. */
const stopLimitSeconds = 300;

export interface LoadOptions {
  /** Of fio's file, written and verified in every round. */
  sizeMiB: number;
  /** fio writes and reads no faster. */
  rateMiB: number;
  depth?: number;
}

export interface LoadResult {
  /** fio's rounds of writing and verifying. */
  rounds: number;
  /** Records that fsync had promised, and were there at the end. */
  records: number;
}

export class VerifiedLoad {
  readonly #machine: VirtualMachine;
  readonly #directory: string;
  readonly #fio: Promise<Answer>;
  readonly #ledger: Promise<Answer>;

  private constructor(machine: VirtualMachine, directory: string, options: LoadOptions) {
    this.#machine = machine;
    this.#directory = directory;
    this.#fio = machine.attempt(fioRounds(directory, options), { limitSeconds });
    this.#ledger = machine.attempt(ledger(directory), { limitSeconds });
    // What becomes of them is told when it is stopped, also when the test fails before that.
  }

  static async start(machine: VirtualMachine, mount: string, options: LoadOptions): Promise<VerifiedLoad> {
    const directory = `${mount}/load`;
    await machine.run(`mkdir -p ${directory}; rm -f ${directory}/stop`);
    return new VerifiedLoad(machine, directory, options);
  }

  /** Until fsync has promised records that were not written when this was called. */
  async progress(limitMs: number): Promise<void> {
    const records = async () => Number(await this.#machine.run(`wc -l <${this.#directory}/ledger`));
    const before = await records();
    // Those under way may have been on the disk already.
    const enough = before + 5;
    await eventually('records are written', limitMs, async () => (await records()) > enough, guestPollMs);
  }

  /** Lets the round end and looks at every record again, from the disk. Throws what was wrong. */
  async stop(): Promise<LoadResult> {
    await this.#machine.run(`touch ${this.#directory}/stop`);
    for (const job of [this.#fio, this.#ledger]) {
      const { exitCode, output } = await job;
      if (exitCode !== 0) throw new Error(`exit code ${exitCode}: ${output.slice(-3000)}`);
    }
    const counted = await this.#machine.run(
      `
      cd ${this.#directory}
      sync
      echo 3 >/proc/sys/vm/drop_caches
      awk '$1 != NR || $2 != "record" || $3 != NR * 7919 { print "line " NR ": " $0; exit 1 }' ledger
      [ "$(wc -l <ledger)" = "$(cat promised)" ] || { echo "promised $(cat promised), there $(wc -l <ledger)"; exit 1; }
      echo "$(cat rounds 2>/dev/null || echo 0) $(cat promised)"`,
      { limitSeconds: stopLimitSeconds },
    );
    const [rounds, records] = counted.trim().split(' ').map(Number);
    return { rounds: rounds ?? 0, records: records ?? 0 };
  }
}

function fioRounds(directory: string, { sizeMiB, rateMiB, depth = 16 }: LoadOptions): string {
  return `
    cd ${directory}
    round=0
    until [ -e stop ]; do
      fio --name=load --filename=data --size=${sizeMiB}m --rw=randwrite --bsrange=4k-256k --direct=1 \
        --ioengine=libaio --iodepth=${depth} --rate=${rateMiB}m,${rateMiB}m --randseed=$((round + 1)) \
        --verify=crc32c --verify_fatal=1 --end_fsync=1 >fio.log 2>&1 || { cat fio.log; exit 1; }
      round=$((round + 1))
      echo $round >rounds
    done`;
}

/** `promised` is counted after fsync, in memory: it must not have to be written before the next record. */
function ledger(directory: string): string {
  return `
    cd ${directory}
    : >ledger
    record=0
    until [ -e stop ]; do
      record=$((record + 1))
      echo "$record record $((record * 7919))" | dd of=ledger oflag=append conv=notrunc,fsync status=none
      [ $((record % 5)) != 0 ] || sleep 1
    done
    echo $record >promised`;
}
