/** Docker's VolumeDriver protocol: what each call carries, checked before anything is done with it. */
import { z } from 'zod';
import { namePattern } from '../daemon/api/schema.ts';
import { WeftError } from '../daemon/base/errors.ts';

export const answerType = 'application/vnd.docker.plugins.v1.2+json';
/** dockerd sends a few hundred bytes; options are the most of it. */
export const maxBodyBytes = 64 * 1024;

const volumeName = z
  .string()
  .regex(
    namePattern,
    'a volume name is 1 to 128 letters, digits, "_", "." or "-", and starts with a letter or digit',
  );
const mountId = z
  .string()
  .min(1, 'a mount id is not empty')
  .max(256, 'a mount id has at most 256 characters');
const named = z.object({ Name: volumeName });

const requests = {
  Create: z.object({ Name: volumeName, Opts: z.record(z.string(), z.string()).nullish() }),
  Remove: named,
  Mount: z.object({ Name: volumeName, ID: mountId }),
  Unmount: z.object({ Name: volumeName, ID: mountId }),
  Path: named,
  Get: named,
  List: z.object({}),
  Capabilities: z.object({}),
};

type Operation = keyof typeof requests;
export type DriverRequest = {
  [Name in Operation]: { operation: Name } & z.infer<(typeof requests)[Name]>;
}[Operation];
export type PluginRequest = DriverRequest | { operation: 'Activate' };

/** Calls without parameters: dockerd's retries, which have lost their body, are as good as the first. */
const needNoBody: readonly string[] = ['List', 'Capabilities'];

/**
 * @throws WeftError UNSUPPORTED for a path nobody knows, INVALID_ARGUMENT for a body that is empty, no JSON, or has
 * fields missing or of the wrong type.
 */
export function parseRequest(path: string, body: Buffer): PluginRequest {
  if (path === '/Plugin.Activate') return { operation: 'Activate' };
  const operation = path.startsWith('/VolumeDriver.') ? path.slice('/VolumeDriver.'.length) : '';
  if (!Object.hasOwn(requests, operation)) {
    throw new WeftError('UNSUPPORTED', `there is no call ${path.slice(0, 100)}`);
  }
  const text = body.toString('utf8').trim();
  if (text === '' && !needNoBody.includes(operation)) {
    throw new WeftError('INVALID_ARGUMENT', `${operation}: the body is empty; send the request again, whole`);
  }
  let document: unknown;
  try {
    document = text === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw new WeftError('INVALID_ARGUMENT', `${operation}: the body is not JSON`, { cause });
  }
  const result = requests[operation as Operation].safeParse(document);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    const where = issue.path.length === 0 ? 'the body' : issue.path.join('.').slice(0, 100);
    throw new WeftError('INVALID_ARGUMENT', `${operation}: ${where}: ${issue.message}`);
  }
  return { operation, ...result.data } as DriverRequest;
}
