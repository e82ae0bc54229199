import { type ApiServices, administrators, everybody, type Route, route } from '../route.ts';
import type { FailedLogin, Status } from '../schema.ts';

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
            faulty: online.filter((volume) => catalog.volumes.fault(volume) !== null).length,
            trash: catalog.trash.list().length,
            sessions: online.reduce((sum, volume) => sum + catalog.host.sessions(volume).length, 0),
          },
          logins: catalog.host.logins().counts,
        };
        return { status: 200, body: status };
      },
    }),
    route({
      method: 'GET',
      path: '/logins/failed',
      summary: 'Who tried to log in over iSCSI since the start and was refused, the last first.',
      roles: administrators,
      answer: '{ logins: FailedLogin[] }',
      async handle() {
        const logins = catalog.host.logins().failures.map(({ lastMs, ...login }): FailedLogin => {
          return { ...login, lastAt: new Date(lastMs).toISOString() };
        });
        return { status: 200, body: { logins } };
      },
    }),
  ];
}
