import { tokenDocument } from '../documents.ts';
import { type ApiServices, administrators, type Route, route } from '../route.ts';
import { type TokenCreated, tokenCreateSchema } from '../schema.ts';

export function tokenRoutes({ catalog }: ApiServices): Route[] {
  return [
    route({
      method: 'GET',
      path: '/tokens',
      summary: 'Names and roles of the tokens; the tokens themselves are kept nowhere.',
      roles: administrators,
      answer: '{ tokens: TokenInfo[] }',
      async handle() {
        return { status: 200, body: { tokens: catalog.tokens.list().map(tokenDocument) } };
      },
    }),
    route({
      method: 'POST',
      path: '/tokens',
      summary: 'Makes a token. The answer is the only place it is ever shown.',
      roles: administrators,
      body: tokenCreateSchema,
      answer: 'TokenCreated',
      async handle({ body }) {
        const created = await catalog.tokens.create(body.name, body.role);
        const answer: TokenCreated = { ...tokenDocument(created), token: created.token };
        return { status: 201, body: answer };
      },
    }),
    route({
      method: 'DELETE',
      path: '/tokens/{name}',
      summary: "Revokes a token at once. CONFLICT for the last administrator's.",
      roles: administrators,
      answer: 'nothing',
      async handle({ name }) {
        await catalog.tokens.remove(name);
        return { status: 204 };
      },
    }),
  ];
}
