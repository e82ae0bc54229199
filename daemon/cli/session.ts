/** One run of the CLI: whom it talks to, as whom, and how it answers. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { WeftClient } from '../api/client.ts';
import { WeftError } from '../base/errors.ts';

const defaultUrl = 'http://127.0.0.1:7480';

interface GlobalOptions {
  url?: string;
  token?: string;
  tokenFile?: string;
  timeout?: string;
  json?: boolean;
}

export class Session {
  readonly client: WeftClient;
  readonly #json: boolean;

  /** @throws WeftError UNAUTHENTICATED without a token; INVALID_ARGUMENT. */
  constructor(command: Command) {
    const options = command.optsWithGlobals<GlobalOptions>();
    const timeoutSeconds = Number(options.timeout ?? '60');
    if (!(timeoutSeconds > 0 && timeoutSeconds <= 86_400)) {
      throw new WeftError('INVALID_ARGUMENT', `--timeout: "${options.timeout}" is not 1 to 86400 seconds`);
    }
    this.#json = options.json === true;
    this.client = new WeftClient({
      url: options.url ?? (process.env['WEFT_URL'] || defaultUrl),
      token: tokenOf(options),
      timeoutMs: timeoutSeconds * 1000,
    });
  }

  /** To standard output: the document as JSON with --json, else the text for people. */
  show(document: unknown, text: string): void {
    const output = this.#json ? JSON.stringify(document, null, 2) : text;
    if (output !== '') process.stdout.write(`${output}\n`);
  }
}

function tokenOf({ token, tokenFile }: GlobalOptions): string {
  const found = token ?? (tokenFile === undefined ? process.env['WEFT_TOKEN'] : readToken(tokenFile));
  if (found !== undefined && found !== '') return found;
  throw new WeftError(
    'UNAUTHENTICATED',
    'no token: set WEFT_TOKEN, or give --token or --token-file (weftd leaves the first one in DIR/admin.token)',
  );
}

function readToken(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new WeftError('UNAUTHENTICATED', `--token-file: ${(cause as Error).message}`, { cause });
  }
}
