#!/usr/bin/env node
/** The plugin's process. Its settings come from the environment: see settings.ts. */
import { pino } from 'pino';
import { startPlugin } from './plugin.ts';
import { readBasics } from './settings.ts';

const log = pino({ name: 'weft-plugin', level: readBasics(process.env).logLevel });

try {
  const plugin = await startPlugin({ environment: process.env, log });
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping) return;
      stopping = true;
      log.info({ signal }, 'ending; what is mounted stays');
      plugin.stop().then(
        () => process.exit(0),
        (error) => {
          log.error({ err: error }, 'could not end cleanly');
          process.exit(1);
        },
      );
    });
  }
} catch (error) {
  log.fatal({ err: error }, (error as Error).message);
  process.exitCode = 1;
}
