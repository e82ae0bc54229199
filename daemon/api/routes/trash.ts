import { WeftError } from '../../base/errors.ts';
import type { VolumeRecord } from '../../control/documents.ts';
import type { Identity } from '../../control/tokens.ts';
import { manages, seen, sees } from '../access.ts';
import { volumeDocument } from '../documents.ts';
import { type ApiServices, everybody, managers, type Route, route } from '../route.ts';
import { restoreSchema } from '../schema.ts';

export function trashRoutes(services: ApiServices): Route[] {
  const { catalog } = services;
  const find = (identity: Identity, id: string): VolumeRecord => seen(identity, catalog.trash.find(id), id);
  return [
    route({
      method: 'GET',
      path: '/trash',
      summary: 'The removed volumes the caller may see, the last removed first.',
      roles: everybody,
      answer: '{ volumes: Volume[] }',
      async handle({ identity }) {
        const volumes = catalog.trash.list().filter((volume) => sees(identity, volume));
        return { status: 200, body: { volumes: volumes.map((volume) => volumeDocument(services, volume)) } };
      },
    }),
    route({
      method: 'POST',
      path: '/trash/{id}/restore',
      summary:
        'Brings a removed volume back. ALREADY_EXISTS when its name is taken: give another one as "as".',
      roles: managers,
      body: restoreSchema,
      answer: 'Volume',
      async handle({ identity, id, body }) {
        find(identity, id);
        const volume = await catalog.trash.restore(id, body.as ?? null);
        return { status: 200, body: volumeDocument(services, volume) };
      },
    }),
    route({
      method: 'DELETE',
      path: '/trash/{id}',
      summary: 'Destroys a removed volume; answers when its space is given back.',
      roles: managers,
      answer: 'nothing',
      async handle({ identity, id }) {
        find(identity, id);
        await catalog.trash.purge(id);
        return { status: 204 };
      },
    }),
    route({
      method: 'DELETE',
      path: '/trash',
      summary: 'Destroys every removed volume the caller manages; answers when the space is given back.',
      roles: managers,
      answer: '{ purged: number }',
      async handle({ identity }) {
        let purged = 0;
        for (const volume of catalog.trash.list().filter((volume) => manages(identity, volume))) {
          purged += (await purgeUnlessRestored(services, volume.id)) ? 1 : 0;
        }
        return { status: 200, body: { purged } };
      },
    }),
  ];
}

/** A volume that was restored while others were purged is no longer trash, and no error. */
async function purgeUnlessRestored({ catalog }: ApiServices, id: string): Promise<boolean> {
  try {
    await catalog.trash.purge(id);
    return true;
  } catch (error) {
    if (error instanceof WeftError && error.code === 'CONFLICT') return false;
    throw error;
  }
}
