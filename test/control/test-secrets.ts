/** Sealed with a key that every run has: what one catalog writes another reads. */
import { Secrets } from '../../daemon/control/secrets.ts';
import { systemRandom } from '../../daemon/env/random.ts';
import { secretKey } from '../../daemon/format/secret-keys.ts';

export const testSecrets = new Secrets([secretKey(Buffer.alloc(32, 0x5e))], systemRandom);
