/** Runs the system's tools (mount, mkfs, iscsiadm, ...): never through a shell, always bounded in time. */
import { execa } from 'execa';
import { WeftError } from '../daemon/base/errors.ts';

export interface ToolResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

export interface ToolOptions {
  timeoutMs?: number;
  /** Exit codes that are no failure; 0 when absent. */
  accept?: readonly number[];
  input?: string;
}

const defaultTimeoutMs = 20_000;
/** A tool that ignores SIGTERM gets SIGKILL after this; one in an uninterruptible sleep is left behind after it again. */
const killAfterMs = 1_000;
/** A tool that says more has gone mad; its words beyond this are dropped. */
const maxOutputBytes = 1024 * 1024;
const maxQuotedCharacters = 600;

/**
 * @throws WeftError TOOL_FAILED with the tool's words when it exits otherwise or is missing; TIMEOUT when it did not
 * end in time, whether or not it could be killed.
 */
export async function runTool(
  tool: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  const child = execa(tool, args, {
    reject: false,
    timeout: timeoutMs,
    forceKillAfterDelay: killAfterMs,
    maxBuffer: maxOutputBytes,
    stripFinalNewline: true,
    env: { LC_ALL: 'C' },
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
  });
  // A process in an uninterruptible sleep cannot be killed: the caller must not wait for it.
  let giveUp: NodeJS.Timeout | undefined;
  const gaveUp = new Promise<null>((resolve) => {
    giveUp = setTimeout(() => resolve(null), timeoutMs + 2 * killAfterMs);
  });
  const result = await Promise.race([child, gaveUp]);
  clearTimeout(giveUp);
  const command = [tool, ...args].join(' ');
  if (result === null || result.timedOut) {
    throw new WeftError('TIMEOUT', `\`${command}\` did not end within ${timeoutMs / 1000} s`, {
      details: { tool },
    });
  }
  const [stdout, stderr] = [String(result.stdout ?? ''), String(result.stderr ?? '')];
  const accepted = options.accept ?? [0];
  if (result.exitCode === undefined || !accepted.includes(result.exitCode)) {
    const said = (stderr.trim() || stdout.trim() || result.shortMessage || '').slice(-maxQuotedCharacters);
    const how =
      result.exitCode === undefined ? (result.signal ?? result.code ?? 'not started') : result.exitCode;
    throw new WeftError('TOOL_FAILED', `\`${command}\` failed (${how}): ${said}`, {
      details: { tool, exitCode: result.exitCode ?? null },
    });
  }
  return { exitCode: result.exitCode, stdout, stderr };
}
