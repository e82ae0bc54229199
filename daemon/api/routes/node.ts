import { type ApiServices, everybody, type Route, route } from '../route.ts';
import type { Status } from '../schema.ts';

export function nodeRoutes({ catalog, node }: ApiServices): Route[] {
  return [
    route({
      method: 'GET',
      path: '/status',
      summary: 'How the node is: capacity, journal, volumes and sessions.',
      roles: everybody,
      answer: 'Status',
      async handle() {
        const online = catalog.volumes.list();
        const status: Status = {
          version: node.version,
          node: { id: node.id, name: node.name },
          state: node.state(),
          startedAt: node.startedAt,
          portals: catalog.host.portals(),
          capacity: catalog.host.capacity(),
          journal: catalog.host.journal(),
          volumes: {
            online: online.length,
            trash: catalog.trash.list().length,
            sessions: online.reduce((sum, volume) => sum + catalog.host.sessions(volume).length, 0),
          },
        };
        return { status: 200, body: status };
      },
    }),
  ];
}
