/**
 * Sizes as people write them: "10g", "512m", "1.5t", "1048576". Units are powers of 1024, in either case, with or
 * without "b" or "ib" behind them; a plain number is bytes.
 */
import { WeftError } from './errors.ts';
import { GiB, KiB, MiB, TiB } from './limits.ts';

const unitBytes: Readonly<Record<string, number>> = { '': 1, k: KiB, m: MiB, g: GiB, t: TiB, p: 1024 * TiB };

/** The words for an error message. */
export const sizeSyntax =
  'a size is a positive number with k, m, g or t behind it, or plain bytes: 10g, 512m, 1073741824';

/**
 * Bytes of a written size.
 * @param what names the value in the error message: a key, an option.
 * @throws WeftError INVALID_ARGUMENT when it is empty, negative, zero, no whole number of bytes, or beyond counting.
 */
export function parseSize(text: string, what = 'size'): number {
  const parts = /^(\d{1,16}(?:\.\d{1,9})?) ?(?:([kmgtp])(?:i?b)?|b)?$/i.exec(text.trim());
  const unit = unitBytes[(parts?.[2] ?? '').toLowerCase()];
  const sizeBytes = parts === null || unit === undefined ? Number.NaN : Number(parts[1]) * unit;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    const found = text.length > 40 ? `${text.slice(0, 40)}...` : text;
    throw new WeftError(
      'INVALID_ARGUMENT',
      `${what}: ${JSON.stringify(found)} is not a size; ${sizeSyntax}`,
      {
        details: { key: what, found },
      },
    );
  }
  return sizeBytes;
}

/** A size for people, with at most three digits that matter: "10 GiB", "1.5 GiB", "512 B". */
export function formatSize(sizeBytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = sizeBytes;
  let index = 0;
  // 1023.95 would be shown as "1024": it belongs to the next unit.
  while (value >= 1023.95 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  const digits = index === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${units[index]}`;
}
