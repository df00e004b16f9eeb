// Drives the grants without a redirect with openid-client: registration, device
// authorization, token exchange, a signed introspection answer, and the check of a
// logout token with jose.
//
//   node openid-client-grants.mjs '{"issuer": …, "initial": …, "exchanger": [id, secret]}'
//
// It prints {"approve": USER_CODE} and goes on when the person has allowed it,
// prints {"logout": SID}, reads the logout token that came of it as a line from
// standard input, and prints {"done": [steps]} when all went well.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as oidc from 'openid-client'

const { issuer, initial, exchanger, callback, told } = JSON.parse(process.argv[2])
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const done = []
const say = (message) => console.log(JSON.stringify(message))
const execute = [oidc.allowInsecureRequests] // loopback has no TLS; nothing else is relaxed

const app = await oidc.dynamicClientRegistration(new URL(issuer), {
  client_name: 'Outside', redirect_uris: [callback], token_endpoint_auth_method: 'client_secret_post',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  scope: 'openid read:orders', backchannel_logout_uri: told,
}, undefined, { initialAccessToken: initial, execute })
const { client_id } = app.clientMetadata()
assert.match(client_id, /^dyn_/)
done.push('registration')

const started = await oidc.initiateDeviceAuthorization(app, { scope: 'openid read:orders' })
say({ approve: started.user_code })
await lines.next()
const tokens = await oidc.pollDeviceAuthorizationGrant(app, { ...started, interval: 1 })
const { sub, sid } = tokens.claims()
done.push('device')

const service = await oidc.discovery(new URL(issuer), exchanger[0], undefined, oidc.ClientSecretBasic(exchanger[1]), { execute })
const exchanged = await oidc.genericGrantRequest(service, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: tokens.access_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
})
assert.equal(exchanged.issued_token_type, 'urn:ietf:params:oauth:token-type:access_token')
assert.equal(exchanged.scope, 'read:orders')
done.push('exchange')

const keys = createRemoteJWKSet(new URL(app.serverMetadata().jwks_uri))
const answer = await fetch(service.serverMetadata().introspection_endpoint, {
  method: 'POST', body: new URLSearchParams({ token: exchanged.access_token, client_id: exchanger[0], client_secret: exchanger[1] }),
  headers: { accept: 'application/token-introspection+jwt' },
})
const signed = await jwtVerify(await answer.text(), keys, { issuer, audience: exchanger[0], typ: 'token-introspection+jwt' })
assert.equal(signed.payload.token_introspection.active, true)
assert.equal(signed.payload.token_introspection.sub, sub)
done.push('signed introspection')

say({ logout: sid })
const token = (await lines.next()).value
const logout = await jwtVerify(token, keys, { issuer, audience: client_id, typ: 'logout+jwt', requiredClaims: ['jti', 'exp', 'events'] })
assert.equal(logout.payload.sid, sid)
assert.equal(logout.payload.sub, sub)
assert.ok('http://schemas.openid.net/event/backchannel-logout' in logout.payload.events)
assert.ok(!('nonce' in logout.payload))
await assert.rejects(oidc.refreshTokenGrant(app, tokens.refresh_token), { error: 'invalid_grant' })
done.push('back-channel logout')
say({ done })
process.exit(0)
