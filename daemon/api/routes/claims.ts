import { z } from 'zod';
import { requireAdministrator } from '../access.ts';
import { claimDocument } from '../documents.ts';
import { type ApiServices, managers, type Route, route } from '../route.ts';
import { claimSchema } from '../schema.ts';
import { findVolume } from './volumes.ts';

const releaseQuerySchema = z.strictObject({ holder: z.string().min(1).max(255).optional() });

export function claimRoutes(services: ApiServices): Route[] {
  const { catalog } = services;
  return [
    route({
      method: 'PUT',
      path: '/volumes/{name}/claim',
      summary:
        'Takes the claim on a volume, or renews it. IN_USE names who has it; a lapsed one is taken over. FORBIDDEN when the ' +
        'volume has a list of initiators without this one.',
      roles: managers,
      body: claimSchema,
      answer: 'VolumeClaim',
      async handle({ identity, name, body }) {
        const volume = findVolume(services, identity, name);
        const { holder, initiator, ttlSeconds } = body;
        const claim = await catalog.claims.take(volume.id, name, {
          holder,
          initiator,
          ttlMs: ttlSeconds * 1000,
        });
        return { status: 200, body: claimDocument(claim) };
      },
    }),
    route({
      method: 'DELETE',
      path: '/volumes/{name}/claim',
      summary:
        'Gives the claim back. Without a holder (administrators): whoever has it, whose sessions are dropped.',
      roles: managers,
      query: releaseQuerySchema,
      answer: 'nothing',
      async handle({ identity, name, query }) {
        const volume = findVolume(services, identity, name);
        if (query.holder === undefined) requireAdministrator(identity, 'to release the claim of any holder');
        await catalog.claims.release(volume.id, name, query.holder ?? null);
        return { status: 204 };
      },
    }),
  ];
}
