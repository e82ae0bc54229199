/** A plugin process like plugin/main.ts, whose volumes are attached as loop devices over the files in LOOP_DIRECTORY. */
import { pino } from 'pino';
import { startPlugin } from '../../plugin/plugin.ts';
import { LoopEngine } from './loop-engine.ts';

const log = pino({ level: process.env.WEFT_LOG_LEVEL ?? 'warn' }, pino.destination({ dest: 2, sync: true }));
const engine = new LoopEngine(process.env.LOOP_DIRECTORY ?? '');
const plugin = await startPlugin({ environment: process.env, log, chooseEngine: async () => engine });
process.on('SIGTERM', () => plugin.stop().then(() => process.exit(0)));
await plugin.recovered;
process.stdout.write('recovered\n');
