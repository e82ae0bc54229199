/** What a kernel's log must not have in it. */

/** Data that was lost, or could have been. */
const damage =
  /I\/O error|EXT4-fs (error|warning)|XFS .*(error|corrupt|shut)|Buffer I\/O|JBD2: .*(error|abort)|lost async page|critical (target|medium|space)|rejecting I\/O|blocked for more than/i;
/** In capitals: "MP-BIOS bug" is said of emulated machines. */
const kernelBug = /BUG:|Oops|WARNING:|Call Trace/;
/** A connection that broke, a command that had to be repeated: only while weftd is disturbed. */
const disturbance =
  /conn error|ping timeout|session recovery timed out|abort|timed out|timing out|offlined|Sense Key|FAILED Result|Power-on or device reset/i;

/** What a path's disk says once it is given up; the device that joins the paths repeats the command over another. */
const pathLoss = /(I\/O error, dev|rejecting I\/O to|sd [\d:]+: \[)\s?(sd[a-z]+|offline device|dead device)/;

/**
 * A logout in Linux 6.1 may warn of itself: its work queue waits for a runtime power management job of the disk it
 * takes away. The trace has no I/O in it. Only this warning, and of it only these lines.
 */
const logoutWarning =
  /WQ_MEM_RECLAIM iscsi_ctrl_\S+:__iscsi_unbind_session .* !WQ_MEM_RECLAIM pm:pm_runtime_work/;
const logoutTrace = /WARNING: .* check_flush_dependency|Call Trace:/;
const traceEnd = '---[ end trace';

const beginnings = { disturbed: 'weft-test: disturbed', pathCut: 'weft-test: a path is cut' } as const;
const end = 'weft-test: undisturbed';
export type Disturbance = keyof typeof beginnings;

/** What to note in the log where a disturbance begins, and where it is over. */
export function marksOf(disturbance: Disturbance): { begin: string; end: string } {
  return { begin: beginnings[disturbance], end };
}

/**
 * Between its marks a disturbance excuses lines of `disturbance`; a path that is cut, those of `pathLoss` too. Nothing
 * excuses what a file system, or the device over the paths, complains of.
 */
export function faultsIn(lines: readonly string[]): string[] {
  const faults: string[] = [];
  let now: Disturbance | null = null;
  let loggingOut = false;
  for (const line of lines) {
    if (logoutWarning.test(line)) loggingOut = true;
    else if (line.includes(traceEnd)) loggingOut = false;
    if (loggingOut && logoutTrace.test(line)) continue;
    if (line.includes(beginnings.disturbed)) now = 'disturbed';
    else if (line.includes(beginnings.pathCut)) now = 'pathCut';
    else if (line.includes(end)) now = null;
    else if (now === 'pathCut' && pathLoss.test(line)) continue;
    else if (damage.test(line) || kernelBug.test(line) || (now === null && disturbance.test(line)))
      faults.push(line);
  }
  return faults;
}
