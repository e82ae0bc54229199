/**
 * What a session says beside the answers to SCSI commands (RFC 7143 §11.6, §11.9, §11.11, §11.15, §11.17, §11.19). Each
 * PDU takes its numbers as it is put into the outbox, so they go out in order.
 */
import type { Numbering } from './numbering.ts';
import type { Outbox } from './outbox.ts';
import {
  AsyncEvent,
  encodeAsyncMessage,
  encodeLogoutResponse,
  encodeNopIn,
  encodeReject,
  encodeTaskManagementResponse,
  encodeTextResponse,
  noTag,
} from './pdu.ts';
import type { TextReply } from './text.ts';

export class SessionAnswers {
  private readonly numbering: Numbering;
  /** Of the connection there is now. */
  private outbox: Outbox;

  constructor(numbering: Numbering, outbox: Outbox) {
    this.numbering = numbering;
    this.outbox = outbox;
  }

  use(outbox: Outbox): void {
    this.outbox = outbox;
  }

  /** With the header it is about. */
  reject(bhs: Buffer, reason: number): void {
    const header = this.outbox.header();
    encodeReject(this.outbox.slab, header, this.numbering.next(), reason);
    this.outbox.end(header, Buffer.from(bhs), null);
  }

  managed(itt: number, status: number): void {
    const header = this.outbox.header();
    encodeTaskManagementResponse(this.outbox.slab, header, itt, this.numbering.next(), status);
    this.outbox.endEmpty(header);
  }

  echo(itt: number, data: Buffer): void {
    const header = this.outbox.header();
    encodeNopIn(this.outbox.slab, header, itt, this.numbering.next(), noTag);
    this.end(header, data);
  }

  /** Asks the initiator for a sign of life. */
  ping(): void {
    const header = this.outbox.header();
    encodeNopIn(this.outbox.slab, header, noTag, this.numbering.current(), 0);
    this.outbox.endEmpty(header);
  }

  text(itt: number, reply: TextReply): void {
    const header = this.outbox.header();
    encodeTextResponse(this.outbox.slab, header, itt, this.numbering.next(), reply);
    this.end(header, reply.text);
  }

  loggedOut(itt: number, response: number): void {
    const header = this.outbox.header();
    encodeLogoutResponse(this.outbox.slab, header, itt, this.numbering.next(), response);
    this.outbox.endEmpty(header);
  }

  /** Tells the initiator to log out within that time, for instance because the daemon ends. */
  requestLogout(withinSeconds: number): void {
    this.tell(AsyncEvent.requestLogout, [0, 0, Math.min(withinSeconds, 0xffff)]);
  }

  /** Tells the initiator that the session ends now and not by a fault; it may come back at once. */
  announceEnd(): void {
    this.tell(AsyncEvent.dropAllConnections, [0, 0, 0]);
  }

  private tell(event: number, parameters: readonly [number, number, number]): void {
    const header = this.outbox.header();
    encodeAsyncMessage(this.outbox.slab, header, this.numbering.next(), event, parameters);
    this.outbox.endEmpty(header);
  }

  private end(header: number, data: Buffer): void {
    if (data.length > 0) this.outbox.end(header, data, null);
    else this.outbox.endEmpty(header);
  }
}
