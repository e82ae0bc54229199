import { z } from 'zod';
import { WeftError } from '../../base/errors.ts';
import type { VolumeRecord } from '../../control/documents.ts';
import type { Identity } from '../../control/tokens.ts';
import { manages, requireAdministrator, seen, sees } from '../access.ts';
import { attachmentDocument, volumeDocument } from '../documents.ts';
import { type ApiServices, everybody, managers, type Route, route } from '../route.ts';
import { restoreSchema, volumeCreateSchema, volumeUpdateSchema } from '../schema.ts';

const flagSchema = z.enum(['true', 'false']).default('false');
const removeQuerySchema = z.strictObject({ force: flagSchema, purge: flagSchema });

export function volumeRoutes(services: ApiServices): Route[] {
  return [...readingRoutes(services), ...changingRoutes(services)];
}

function readingRoutes(services: ApiServices): Route[] {
  const { catalog } = services;
  return [
    route({
      method: 'GET',
      path: '/volumes',
      summary: 'The volumes the caller may see, by name; none of the trash.',
      roles: everybody,
      answer: '{ volumes: Volume[] }',
      async handle({ identity }) {
        const volumes = catalog.volumes.list().filter((volume) => sees(identity, volume));
        return { status: 200, body: { volumes: volumes.map((volume) => volumeDocument(services, volume)) } };
      },
    }),
    route({
      method: 'GET',
      path: '/volumes/{name}',
      summary: 'One volume.',
      roles: everybody,
      answer: 'Volume',
      async handle({ identity, name }) {
        return { status: 200, body: volumeDocument(services, findVolume(services, identity, name)) };
      },
    }),
    route({
      method: 'GET',
      path: '/volumes/{name}/attachment',
      summary: 'What an initiator needs to log in, the CHAP secrets included.',
      roles: everybody,
      answer: 'Attachment',
      async handle({ identity, name }) {
        const volume = findVolume(services, identity, name);
        if (!manages(identity, volume)) {
          throw new WeftError(
            'FORBIDDEN',
            `the secret of ${name} is for administrators and whoever created it`,
          );
        }
        return { status: 200, body: attachmentDocument(services, volume) };
      },
    }),
  ];
}

function changingRoutes(services: ApiServices): Route[] {
  const { catalog } = services;
  return [
    route({
      method: 'POST',
      path: '/volumes',
      summary:
        'Makes a volume. ALREADY_EXISTS when the name is taken, NO_SPACE beyond the quota of its container.',
      roles: managers,
      body: volumeCreateSchema,
      answer: 'Volume',
      async handle({ identity, body }) {
        const volume = await catalog.volumes.create({ ...body, createdBy: identity.name });
        return { status: 201, body: volumeDocument(services, volume) };
      },
    }),
    route({
      method: 'PATCH',
      path: '/volumes/{name}',
      summary:
        'Grows a volume, records the filesystem made on it, changes who may log in: all of it or nothing. Who is not ' +
        'allowed any more is logged out when this answers.',
      roles: managers,
      body: volumeUpdateSchema,
      answer: 'UpdatedVolume',
      async handle({ identity, name, body }) {
        findVolume(services, identity, name);
        const { volume, droppedSessions } = await catalog.volumes.update(name, body);
        return { status: 200, body: { ...volumeDocument(services, volume), droppedSessions } };
      },
    }),
    route({
      method: 'DELETE',
      path: '/volumes/{name}',
      summary:
        'Moves a volume to the trash, or, with purge=true or when its container keeps none, destroys it and answers ' +
        'when the space is given back. IN_USE while it is used; force=true (administrators) drops the users.',
      roles: managers,
      query: removeQuerySchema,
      answer: 'Volume, or nothing when it is gone',
      async handle({ identity, name, query }) {
        const volume = findVolume(services, identity, name);
        const force = query.force === 'true';
        if (force) requireAdministrator(identity, 'force=true');
        const left = await catalog.trash.remove(volume.id, name, { force, purge: query.purge === 'true' });
        return left === null ? { status: 204 } : { status: 200, body: volumeDocument(services, left) };
      },
    }),
    route({
      method: 'POST',
      path: '/volumes/{name}/restore',
      summary: 'Brings back the volume of this name that was removed last.',
      roles: managers,
      body: restoreSchema,
      answer: 'Volume',
      async handle({ identity, name, body }) {
        const found = catalog.trash.newestOf(name, (volume) => manages(identity, volume));
        const volume = await catalog.trash.restore(found.id, body.as ?? null);
        return { status: 200, body: volumeDocument(services, volume) };
      },
    }),
  ];
}

/** @throws WeftError NOT_FOUND, also for volumes the caller may not know of. */
export function findVolume({ catalog }: ApiServices, identity: Identity, name: string): VolumeRecord {
  return seen(identity, catalog.volumes.find(name), name);
}
