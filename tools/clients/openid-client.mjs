// Drives gatehouse with openid-client as a client developer would: discovery,
// authorization code with PKCE, userinfo, an API call, refresh, introspection,
// revocation, client credentials.
//
//   node openid-client.mjs '{"issuer": …, "api": …, "redirect": …, "web": …, "batch": …, "inspector": …}'
//
// It prints {"authorize": URL}, reads the URL that the person comes back with as
// a line from standard input, and prints {"done": [steps]} when all went well.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import * as oidc from 'openid-client'

const { issuer, api, redirect, web, batch, inspector } = JSON.parse(process.argv[2])
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const done = []
const say = (message) => console.log(JSON.stringify(message))
// Loopback has no TLS; nothing else is relaxed.
const discover = ([id, secret], how) =>
  oidc.discovery(new URL(issuer), id, undefined, how(secret), { execute: [oidc.allowInsecureRequests] })
const call = (config, token, status) =>
  oidc.fetchProtectedResource(config, token, new URL(api), 'GET').then(
    async (answer) => { assert.equal(answer.status, status); return answer.json() },
    (error) => {
      assert.equal(error.code, 'OAUTH_WWW_AUTHENTICATE_CHALLENGE')
      assert.equal(error.status, status)
      return error.cause[0].parameters
    },
  )

const config = await discover(web, oidc.ClientSecretBasic)
for (const algorithm of ['oidc', 'oauth2']) {
  const metadata = (await oidc.discovery(new URL(issuer), web[0], undefined, oidc.None(),
    { algorithm, execute: [oidc.allowInsecureRequests] })).serverMetadata()
  assert.equal(metadata.issuer, issuer)
  assert.ok(metadata.supportsPKCE())
}
done.push('discovery')

// Authorization code with PKCE, nonce and state; the ID token's signature too.
oidc.enableNonRepudiationChecks(config)
const verifier = oidc.randomPKCECodeVerifier()
const state = oidc.randomState()
const nonce = oidc.randomNonce()
say({
  authorize: oidc.buildAuthorizationUrl(config, {
    redirect_uri: redirect, scope: 'openid profile email read:orders', state, nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  }).href,
})
const back = new URL((await lines.next()).value)
const tokens = await oidc.authorizationCodeGrant(config, back,
  { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true })
const { sub } = tokens.claims()
done.push('code')
await assert.rejects(oidc.authorizationCodeGrant(config, back,
  { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true }), { error: 'invalid_grant' })
done.push('code twice')

const other = await authorize()
const info = await oidc.fetchUserInfo(config, other.access_token, sub)
assert.equal(info.email, 'alice@example.com')
done.push('userinfo')

const seen = await call(config, other.access_token, 200)
assert.equal(seen.identity['X-Auth-Subject'], sub)
assert.equal(seen.identity['X-Auth-Client'], web[0])
done.push('api')

const fresh = await oidc.refreshTokenGrant(config, other.refresh_token)
assert.notEqual(fresh.refresh_token, other.refresh_token)
assert.equal(fresh.claims()?.sub ?? sub, sub)
await call(config, fresh.access_token, 200)
done.push('refresh')

const asking = await discover(inspector, oidc.ClientSecretPost)
let told = await oidc.tokenIntrospection(asking, fresh.access_token)
assert.equal(told.active, true)
assert.equal(told.sub, sub)
assert.ok(told.scope.split(' ').includes('read:orders'))
done.push('introspection')

await oidc.tokenRevocation(config, fresh.refresh_token)
told = await oidc.tokenIntrospection(asking, fresh.access_token)
assert.equal(told.active, false)
await assert.rejects(oidc.refreshTokenGrant(config, fresh.refresh_token), { error: 'invalid_grant' })
const challenge = await call(config, fresh.access_token, 401)
assert.equal(challenge.error, 'invalid_token')
done.push('revocation')

const machine = await discover(batch, oidc.ClientSecretBasic)
const credentials = await oidc.clientCredentialsGrant(machine, { scope: 'read:orders' })
assert.equal(credentials.scope ?? 'read:orders', 'read:orders')
assert.equal((await call(machine, credentials.access_token, 200)).identity['X-Auth-Client'], batch[0])
await assert.rejects(oidc.clientCredentialsGrant(machine, { scope: 'openid' }), { error: 'invalid_scope' })
done.push('client credentials')

say({ done })
process.exit(0)

// authorize goes through the whole flow once more: the code that came back
// twice has cost the first grant its life (RFC 6749, 4.1.2).
async function authorize() {
  const verifier = oidc.randomPKCECodeVerifier()
  const state = oidc.randomState()
  say({
    authorize: oidc.buildAuthorizationUrl(config, {
      redirect_uri: redirect, scope: 'openid profile email read:orders', state,
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    }).href,
  })
  return oidc.authorizationCodeGrant(config, new URL((await lines.next()).value),
    { pkceCodeVerifier: verifier, expectedState: state, idTokenExpected: true })
}
