/** QEMU's machine protocol, as much of it as one command needs: a line of JSON each way over a unix socket. */
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { WeftError } from '../daemon/base/errors.ts';

const answerTimeoutMs = 10_000;

/** @throws WeftError UNAVAILABLE when nobody listens, TIMEOUT, TOOL_FAILED with QEMU's words. */
export function qmpCommand(
  socketPath: string,
  command: string,
  values: Record<string, unknown>,
): Promise<void> {
  const commands = [{ execute: 'qmp_capabilities' }, { execute: command, arguments: values }];
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    const finish = (error: WeftError | null) => {
      socket.destroy();
      if (error === null) resolve();
      else reject(error);
    };
    socket.setTimeout(answerTimeoutMs, () => {
      finish(new WeftError('TIMEOUT', `QEMU did not answer ${command} within ${answerTimeoutMs / 1000} s`));
    });
    socket.on('error', (cause) => finish(new WeftError('UNAVAILABLE', `QEMU: ${cause.message}`, { cause })));
    const lines = createInterface({ input: socket });
    lines.on('error', () => {});
    lines.on('line', (line) => {
      const message = JSON.parse(line) as { QMP?: unknown; return?: unknown; error?: { desc: string } };
      if (message.error !== undefined) {
        finish(new WeftError('TOOL_FAILED', `QEMU refused ${command}: ${message.error.desc}`));
      } else if (message.QMP !== undefined || message.return !== undefined) {
        // Its greeting, and each answer, asks for the next one; events in between do not.
        const next = commands.shift();
        if (next === undefined) finish(null);
        else socket.write(`${JSON.stringify(next)}\n`);
      }
    });
    lines.on('close', () =>
      finish(new WeftError('UNAVAILABLE', `QEMU closed the connection during ${command}`)),
    );
  });
}
