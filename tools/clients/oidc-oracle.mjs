// Serves npm oidc-provider on a loopback port as the one whose answers ours are
// compared with, request by request.
//
//   node oidc-oracle.mjs '{"secret": …, "callback": …}'
//
// It prints {"issuer": URL} and ends with standard input.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const { secret, callback } = JSON.parse(process.argv[2])
const server = createServer((request, response) => handle(request, response))
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`
const { privateKey } = await generateKeyPair('ES256', { extractable: true })
const common = { client_secret: secret, id_token_signed_response_alg: 'ES256' }
const provider = new Provider(issuer, {
  jwks: { keys: [{ ...await exportJWK(privateKey), kid: 'oracle', alg: 'ES256', use: 'sig' }] },
  clients: [
    { ...common, client_id: 'web', redirect_uris: [callback], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], scope: 'openid offline_access read:orders' },
    { ...common, client_id: 'batch', redirect_uris: [], response_types: [], grant_types: ['client_credentials'], scope: 'read:orders' },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  scopes: ['openid', 'offline_access', 'read:orders'],
  pkce: { required: () => true },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
  },
})
const handle = provider.callback()
console.log(JSON.stringify({ issuer }))
for await (const _ of createInterface({ input: process.stdin }));
process.exit(0)
