/**
 * The crc32c of several pieces in a row, from the crc32c of each: a crc is linear, so appending a piece moves the
 * checksum so far as many zero bytes would, and adds that of the piece (as zlib's crc32_combine does). It takes some
 * 10 ns a piece, whatever its length.
 *
 * One call over a whole run costs a third of a call for every block of it; this is what it is compared with.
 */
import { assert } from '../base/assert.ts';

/** The polynomial of crc32c (Castagnoli), reflected. */
const polynomial = 0x82f63b78;

/** By length of the piece, in bytes: what its zeros make of each byte of a checksum, 4 × 256 entries. */
const tables = new Map<number, Uint32Array>();

/** The checksum of `count` pieces of `pieceBytes` each; theirs are `checksums[from]`, `checksums[from + 1]`, ... */
export function joinedChecksum(
  checksums: ArrayLike<number>,
  from: number,
  count: number,
  pieceBytes: number,
): number {
  assert(count > 0, 'nothing has no checksum');
  const table = tables.get(pieceBytes) ?? newTable(pieceBytes);
  let joined = checksums[from]!;
  for (let index = from + 1; index < from + count; index += 1) {
    const moved =
      table[joined & 0xff]! ^
      table[256 + ((joined >>> 8) & 0xff)]! ^
      table[512 + ((joined >>> 16) & 0xff)]! ^
      table[768 + (joined >>> 24)]!;
    joined = moved ^ checksums[index]!;
  }
  return joined >>> 0;
}

function newTable(pieceBytes: number): Uint32Array {
  const matrix = zerosMatrix(pieceBytes);
  const table = new Uint32Array(4 * 256);
  for (let index = 0; index < table.length; index += 1) {
    table[index] = times(matrix, ((index & 0xff) << (8 * (index >>> 8))) >>> 0);
  }
  tables.set(pieceBytes, table);
  return table;
}

/** A linear map of checksums: what becomes of each of the 32 bits. */
type Matrix = Uint32Array;

function times(matrix: Matrix, vector: number): number {
  let product = 0;
  for (let bit = 0; bit < 32; bit += 1) if ((vector >>> bit) & 1) product ^= matrix[bit]!;
  return product >>> 0;
}

function product(left: Matrix, right: Matrix): Matrix {
  return right.map((column) => times(left, column));
}

/** What so many zero bytes make of a checksum: that of one zero bit, by repeated squaring. */
function zerosMatrix(bytes: number): Matrix {
  let power: Matrix = Uint32Array.from({ length: 32 }, (_, bit) => (bit === 0 ? polynomial : 2 ** (bit - 1)));
  let result: Matrix = Uint32Array.from({ length: 32 }, (_, bit) => 2 ** bit);
  for (let bits = bytes * 8; bits > 0; bits = Math.floor(bits / 2)) {
    if (bits % 2 === 1) result = product(power, result);
    power = product(power, power);
  }
  return result;
}
