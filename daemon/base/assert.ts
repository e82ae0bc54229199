/** A fault of the programmer. It is never caught to go on: the process ends and recovers from its journal. */
export class AssertionFault extends Error {
  override name = 'AssertionFault';
}

/** Ends the operation when something that must be true is not. For what the world can do wrong, use WeftError. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionFault(message);
}
