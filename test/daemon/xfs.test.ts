import t from 'tap';
import { surviveCrashes } from './filesystem-crash.ts';

t.test('xfs survives kill -9 of weftd under load, attached and attached anew', (t) =>
  surviveCrashes(t, 'xfs'),
);
