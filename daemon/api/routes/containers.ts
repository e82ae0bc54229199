import { containerDocument } from '../documents.ts';
import { type ApiServices, administrators, everybody, type Route, route } from '../route.ts';
import { containerCreateSchema, containerUpdateSchema } from '../schema.ts';

export function containerRoutes({ catalog }: ApiServices): Route[] {
  return [
    route({
      method: 'GET',
      path: '/containers',
      summary: 'The storage containers, by name.',
      roles: everybody,
      answer: '{ containers: Container[] }',
      async handle({ identity }) {
        const containers = catalog.containers
          .list()
          .map((container) => containerDocument(catalog, identity, container));
        return { status: 200, body: { containers } };
      },
    }),
    route({
      method: 'POST',
      path: '/containers',
      summary: 'Makes a storage container. ALREADY_EXISTS when the name is taken.',
      roles: administrators,
      body: containerCreateSchema,
      answer: 'Container',
      async handle({ identity, body }) {
        const container = await catalog.containers.create(body);
        return { status: 201, body: containerDocument(catalog, identity, container) };
      },
    }),
    route({
      method: 'GET',
      path: '/containers/{name}',
      summary: 'One storage container.',
      roles: everybody,
      answer: 'Container',
      async handle({ identity, name }) {
        return { status: 200, body: containerDocument(catalog, identity, catalog.containers.find(name)) };
      },
    }),
    route({
      method: 'PATCH',
      path: '/containers/{name}',
      summary: 'Changes the policy for what comes: volumes that are made, and removed, from now on.',
      roles: administrators,
      body: containerUpdateSchema,
      answer: 'Container',
      async handle({ identity, name, body }) {
        const container = await catalog.containers.update(name, body);
        return { status: 200, body: containerDocument(catalog, identity, container) };
      },
    }),
    route({
      method: 'DELETE',
      path: '/containers/{name}',
      summary: 'Removes a storage container. IN_USE while it has volumes, in the trash or not.',
      roles: administrators,
      answer: 'nothing',
      async handle({ name }) {
        await catalog.containers.remove(name);
        return { status: 204 };
      },
    }),
  ];
}
