import t from 'tap';
import { surviveCrashes } from './filesystem-crash.ts';

t.test('ext4 survives kill -9 of weftd under load, attached and attached anew', (t) =>
  surviveCrashes(t, 'ext4'),
);
