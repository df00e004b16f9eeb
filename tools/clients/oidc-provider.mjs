// Serves npm oidc-provider on a loopback port, as an issuer of JWT access tokens
// that is not gatehouse's own.
//
//   node oidc-provider.mjs '{"audience": …, "secret": …}'
//
// It prints {"issuer": URL, "kid": …}. A line on standard input replaces the
// signing key by a new one, with the old one gone at once; {"kid": …} is printed
// when that is done. It ends with standard input.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const { audience, secret } = JSON.parse(process.argv[2])
const scope = 'read:orders'
let handle
const server = createServer((request, response) => handle(request, response))
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`
let keys = 0

async function replaceKey() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true })
  const kid = `partner-${++keys}`
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...await exportJWK(privateKey), kid, alg: 'ES256', use: 'sig' }] },
    clients: [{
      client_id: 'partner', client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: 'ES256', scope,
    }],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    scopes: [scope],
    ttl: { ClientCredentials: 300 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({ scope, audience, accessTokenFormat: 'jwt', accessTokenTTL: 300, jwt: { sign: { alg: 'ES256' } } }),
      },
    },
  })
  handle = provider.callback()
  return kid
}

console.log(JSON.stringify({ issuer, kid: await replaceKey() }))
for await (const _ of createInterface({ input: process.stdin })) console.log(JSON.stringify({ kid: await replaceKey() }))
process.exit(0)
