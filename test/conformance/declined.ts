/**
 * What of iscsi-test-cu does not run to its end with Weft, and why. docs/conformance.md shows the same list; a test
 * keeps them equal.
 */

export interface Declined {
  /** `Suite.Test`, or `Suite.*`. */
  tests: string;
  /** `partial`: it goes on after what it skipped. */
  verdict: 'skip' | 'partial';
  reason: string;
}

const notRemovable = 'The unit is not removable (RMB 0): a volume has no medium that could be taken out.';
const sanitize =
  'SANITIZE is not there: chunks are shared by copies and written to a log, so neither overwriting nor erasing a ' +
  'block takes all that was ever stored of it away.';

export const declined: readonly Declined[] = [
  { tests: 'NoMedia.NoMediaSBC', verdict: 'skip', reason: notRemovable },
  { tests: 'PreventAllow.*', verdict: 'skip', reason: notRemovable },
  { tests: 'StartStopUnit.*', verdict: 'skip', reason: notRemovable },
  { tests: 'Sanitize.Readonly', verdict: 'partial', reason: sanitize },
  { tests: 'Sanitize.*', verdict: 'skip', reason: sanitize },
];

/** The first entry that covers a test. */
export function declinedEntry(name: string): Declined | undefined {
  const [suite] = name.split('.');
  return declined.find(({ tests }) => tests === name || tests === `${suite}.*`);
}
