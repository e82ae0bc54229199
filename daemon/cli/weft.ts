/** The command line of a fabric: `weft`. Talks to the API and nothing else. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { asWeftError, WeftError } from '../base/errors.ts';
import { addContainerCommands } from './commands/container.ts';
import { addLoginsCommand } from './commands/logins.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTokenCommands } from './commands/token.ts';
import { addTrashCommands } from './commands/trash.ts';
import { addVolumeCommands } from './commands/volume.ts';
import { exitCodeOf, exitMeanings } from './exit-codes.ts';

function buildProgram(): Command {
  const program = new Command('weft')
    .description('persistent volumes for Docker on a fabric of ordinary machines')
    .version(version())
    .option('--url <url>', 'where weftd answers (WEFT_URL; default: http://127.0.0.1:7480)')
    .option('--token <token>', 'who you are (WEFT_TOKEN)')
    .option('--token-file <file>', 'a file that holds the token, such as DIR/admin.token')
    .option('--timeout <seconds>', 'how long one request may take (default: 60)')
    .option('--json', 'answers, and errors, as JSON for programs')
    .configureHelp({ showGlobalOptions: true })
    // Errors are shown once, below.
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  const meanings = Object.entries(exitMeanings).map(([code, meaning]) => `  ${code}  ${meaning}`);
  program.addHelpText('after', `\nExit codes:\n${meanings.join('\n')}`);
  addStatusCommand(program);
  addVolumeCommands(program);
  addTrashCommands(program);
  addContainerCommands(program);
  addTokenCommands(program);
  addLoginsCommand(program);
  return program;
}

/** Of the package: two folders up from the sources, three from what is built. */
function version(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const text = readFileSync(new URL(up, import.meta.url), 'utf8');
      return (JSON.parse(text) as { version: string }).version;
    } catch {
      // Not there: the other one.
    }
  }
  return 'unknown';
}

function report(error: WeftError, json: boolean): void {
  const { code, message, details } = error;
  const text = json ? JSON.stringify({ error: { code, message, details } }) : `weft: ${message}`;
  process.stderr.write(`${text}\n`);
}

async function main(args: string[]): Promise<number> {
  const json = args.includes('--json');
  try {
    await buildProgram().parseAsync(args, { from: 'user' });
    return 0;
  } catch (thrown) {
    // Help and version were asked for and printed; a group without a command has its help printed.
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
    if (thrown instanceof CommanderError && thrown.code === 'commander.help') return 2;
    const error =
      thrown instanceof CommanderError
        ? new WeftError(
            'INVALID_ARGUMENT',
            `${thrown.message.replace(/^error: /, '').replace(/\.$/, '')}; see "weft --help"`,
          )
        : asWeftError(thrown);
    report(error, json);
    return exitCodeOf(error);
  }
}

// A reader that stops reading, such as `head`, is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
});
process.exitCode = await main(process.argv.slice(2));
