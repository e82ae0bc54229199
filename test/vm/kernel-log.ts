/** What a kernel's log must not have in it. */

/** Data that was lost, or could have been. */
const damage =
  /I\/O error|EXT4-fs (error|warning)|XFS .*(error|corrupt|shut)|Buffer I\/O|JBD2: .*(error|abort)|lost async page|critical (target|medium|space)|rejecting I\/O|blocked for more than|BUG:|Oops|WARNING:|Call Trace/i;
/** A connection that broke, a command that had to be repeated: only while weftd is disturbed. */
const disturbance =
  /conn error|ping timeout|session recovery timed out|abort|timed out|timing out|offlined|Sense Key|FAILED Result|Power-on or device reset/i;

/** Lines of `disturbance` are allowed between "weft-test: disturbed" and "weft-test: undisturbed". */
export function faultsIn(lines: readonly string[]): string[] {
  const faults: string[] = [];
  let disturbed = false;
  for (const line of lines) {
    if (line.includes('weft-test: disturbed')) disturbed = true;
    else if (line.includes('weft-test: undisturbed')) disturbed = false;
    else if (damage.test(line) || (!disturbed && disturbance.test(line))) faults.push(line);
  }
  return faults;
}
