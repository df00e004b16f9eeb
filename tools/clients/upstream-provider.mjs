// Serves npm oidc-provider on a loopback port, as the provider with which people
// sign in upstream. Whoever comes is signed in as person-7 without being asked.
//
//   node upstream-provider.mjs '{"redirect": …, "secret": …}'
//
// It prints {"issuer": URL} and ends with standard input.
import { createServer } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const { redirect, secret } = JSON.parse(process.argv[2])
let handle
const server = createServer((request, response) => handle(request, response))
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`
const { privateKey } = await generateKeyPair('ES256', { extractable: true })

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...await exportJWK(privateKey), kid: 'k1', alg: 'ES256', use: 'sig' }] },
  clients: [{
    client_id: 'gatehouse', client_secret: secret, grant_types: ['authorization_code'], response_types: ['code'],
    redirect_uris: [redirect], id_token_signed_response_alg: 'ES256',
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username', 'groups'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id, name: 'Pat P', preferred_username: 'pat', groups: ['admins'], email: 'pat@example.com', email_verified: true,
    }),
  }),
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
    grant.addOIDCScope('openid email profile')
    await grant.save()
    return grant
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: { devInteractions: { enabled: false } },
  cookies: { keys: [secret] },
})
const callback = provider.callback()
handle = (request, response) => request.url.startsWith('/interaction/')
  ? provider.interactionFinished(request, response, { login: { accountId: 'person-7' } })
  : callback(request, response)

console.log(JSON.stringify({ issuer }))
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
