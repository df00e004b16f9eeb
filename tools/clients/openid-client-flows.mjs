// Drives every flow with openid-client, unmodified, as a client developer would.
//
//   node openid-client-flows.mjs '{"issuer": …, "api": …, "told": URL, "callback": …, "clients": …, …}'
//
// It prints {"flow": NAME} for each that went well, with "error" for others.
import assert from 'node:assert/strict'
import { createRemoteJWKSet, importJWK, jwtVerify } from 'jose'
import * as oidc from 'openid-client'
import { given, logoutToken, person, report, withCertificate } from './kit.mjs'

const { issuer, api, callback, clients, initial, key } = given
const privateKey = { key: await importJWK(key, 'ES256'), kid: key.kid }
const scope = 'openid profile email offline_access read:orders'
const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange'
const accessType = 'urn:ietf:params:oauth:token-type:access_token'

const discover = (id, how, metadata, options) => oidc.discovery(new URL(issuer), id, metadata, how, options)
const web = await discover('web', oidc.ClientSecretBasic(clients.web))
oidc.enableNonRepudiationChecks(web)
const signer = await discover('signer', oidc.PrivateKeyJwt(privateKey))
const rs = await discover('rs', oidc.ClientSecretPost(clients.rs))

// signIn sends the person to what build makes of the parameters, and redeems the
// code that comes back.
async function signIn(config, build = oidc.buildAuthorizationUrl, options, parameters) {
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier()
  const [expectedState, expectedNonce] = [oidc.randomState(), oidc.randomNonce()]
  const url = await build(config, {
    redirect_uri: callback, scope, state: expectedState, nonce: expectedNonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256', ...parameters,
  })
  const back = await person.visit(url, callback)
  return oidc.authorizationCodeGrant(config, back,
    { pkceCodeVerifier, expectedState, expectedNonce, idTokenExpected: true }, undefined, options)
}

// call asks the API; a refusal gives the parameters of its challenge.
const call = async (config, token, path = '/orders/1', options) =>
  oidc.fetchProtectedResource(config, token, new URL(path, api), 'GET', undefined, undefined, options).then(
    (answer) => answer.status,
    (error) => error.cause[0].parameters,
  )
const active = async (token) => (await oidc.tokenIntrospection(rs, token)).active

await report({
  async 'discovery'() {
    for (const algorithm of ['oidc', 'oauth2']) {
      const metadata = (await discover('web', oidc.None(), undefined, { algorithm })).serverMetadata()
      assert.equal(metadata.issuer, issuer)
      assert.ok(metadata.supportsPKCE())
    }
  },
  async 'code'() {
    const tokens = await signIn(web)
    const info = await oidc.fetchUserInfo(web, tokens.access_token, tokens.claims().sub)
    assert.equal(info.email, 'alice@example.com')
    assert.equal(await call(web, tokens.access_token), 200)
  },
  async 'refresh'() {
    const tokens = await signIn(web)
    const next = await oidc.refreshTokenGrant(web, tokens.refresh_token, { scope: 'openid read:orders' })
    assert.notEqual(next.refresh_token, tokens.refresh_token)
    assert.equal(next.scope, 'openid read:orders')
    assert.equal(await call(web, next.access_token), 200)
    await assert.rejects(oidc.refreshTokenGrant(web, next.refresh_token, { scope: 'write:orders' }), { error: 'invalid_scope' })
  },
  async 'client credentials'() {
    const { access_token } = await oidc.clientCredentialsGrant(signer, { scope: 'read:orders' })
    assert.equal(await call(signer, access_token), 200)
    await assert.rejects(oidc.clientCredentialsGrant(signer, { scope: 'gatehouse:admin' }), { error: 'invalid_scope' })
  },
  async 'private_key_jwt'() {
    const tokens = await signIn(signer)
    await oidc.refreshTokenGrant(signer, tokens.refresh_token)
    const wrong = await discover('signer', oidc.PrivateKeyJwt(privateKey, {
      [oidc.modifyAssertion]: (_, payload) => { payload.aud = `${issuer}/oauth/token` },
    }))
    await assert.rejects(oidc.clientCredentialsGrant(wrong), { error: 'invalid_client' })
  },
  async 'pushed request'() {
    const tokens = await signIn(signer, oidc.buildAuthorizationUrlWithPAR)
    assert.equal(await call(signer, tokens.access_token), 200)
  },
  async 'signed request'() {
    const tokens = await signIn(signer, (config, parameters) => oidc.buildAuthorizationUrlWithJAR(config, parameters, privateKey))
    assert.equal(await call(signer, tokens.access_token), 200)
  },
  async 'signed and pushed request'() {
    await signIn(signer, async (config, parameters) => {
      const signed = await oidc.buildAuthorizationUrlWithJAR(config, parameters, privateKey)
      return oidc.buildAuthorizationUrlWithPAR(config, { request: signed.searchParams.get('request') })
    })
  },
  async 'DPoP'() {
    // The server demands nonces: the library learns them and tries again.
    const config = await discover('fapi', oidc.PrivateKeyJwt(privateKey))
    const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    const tokens = await signIn(config, (c, parameters) => oidc.buildAuthorizationUrlWithPAR(c, parameters, { DPoP }), { DPoP })
    assert.equal(tokens.token_type, 'dpop')
    await oidc.fetchUserInfo(config, tokens.access_token, tokens.claims().sub, { DPoP })
    const next = await oidc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP })
    assert.equal(await call(config, next.access_token, '/proven', { DPoP }), 200)
    assert.equal((await call(config, next.access_token)).error, 'invalid_token') // as Bearer
    const thief = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    assert.equal((await call(config, next.access_token, '/proven', { DPoP: thief })).error, 'invalid_token')
    await assert.rejects(oidc.clientCredentialsGrant(config, { scope: 'read:orders' }), { error: 'invalid_dpop_proof' })
  },
  async 'mutual TLS'() {
    for (const [id, certificate] of Object.entries(given.certificates)) {
      const config = await discover(id, oidc.TlsClientAuth(), undefined, { [oidc.customFetch]: withCertificate(certificate) })
      assert.equal(config.serverMetadata().tls_client_certificate_bound_access_tokens, true)
      const { access_token } = await oidc.clientCredentialsGrant(config, { scope: 'read:orders' })
      assert.equal(await call(config, access_token), 200)
      assert.equal(await call(config, access_token, '/certified'), 200)
      assert.equal((await call(web, access_token)).error, 'invalid_token') // without the certificate
      const bare = await discover(id, oidc.TlsClientAuth())
      await assert.rejects(oidc.clientCredentialsGrant(bare), { error: 'invalid_client' })
    }
  },
  async 'device'() {
    const tv = await discover('tv', oidc.None())
    const started = await oidc.initiateDeviceAuthorization(tv, { scope: 'openid read:orders' })
    const page = await person.visit(started.verification_uri_complete)
    assert.match(page, /Your device is signed in/)
    const tokens = await oidc.pollDeviceAuthorizationGrant(tv, { ...started, interval: 1 })
    assert.ok(tokens.claims().sub)
    assert.equal(await call(tv, tokens.access_token), 200)
  },
  async 'token exchange'() {
    const tokens = await signIn(web)
    const service = await discover('exchanger', oidc.ClientSecretBasic(clients.exchanger))
    const exchanged = await oidc.genericGrantRequest(service, exchangeGrant, {
      subject_token: tokens.access_token, subject_token_type: accessType, scope: 'read:orders',
    })
    assert.equal(exchanged.issued_token_type, accessType)
    assert.equal(await call(service, exchanged.access_token), 200)
    await oidc.tokenRevocation(web, tokens.refresh_token)
    assert.equal(await active(exchanged.access_token), false)
  },
  async 'introspection'() {
    const tokens = await signIn(web)
    const told = await oidc.tokenIntrospection(rs, tokens.access_token)
    assert.equal(told.active, true)
    assert.equal(told.sub, tokens.claims().sub)
    assert.ok(told.scope.split(' ').includes('read:orders'))
  },
  async 'signed introspection'() {
    const tokens = await signIn(web)
    const config = await discover('rs', oidc.ClientSecretBasic(clients.rs), { introspection_signed_response_alg: 'ES256' })
    oidc.enableNonRepudiationChecks(config)
    assert.equal((await oidc.tokenIntrospection(config, tokens.access_token)).sub, tokens.claims().sub)
  },
  async 'revocation'() {
    const tokens = await signIn(web)
    await oidc.tokenRevocation(web, tokens.access_token)
    assert.equal(await active(tokens.access_token), false)
    const next = await oidc.refreshTokenGrant(web, tokens.refresh_token)
    await oidc.tokenRevocation(web, next.refresh_token, { token_type_hint: 'refresh_token' })
    assert.equal(await active(next.access_token), false)
    await assert.rejects(oidc.refreshTokenGrant(web, next.refresh_token), { error: 'invalid_grant' })
  },
  async 'registration'() {
    const config = await oidc.dynamicClientRegistration(new URL(issuer), {
      client_name: 'Registered', redirect_uris: [callback], scope: 'openid read:orders', token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code', 'refresh_token'],
    }, undefined, { initialAccessToken: initial })
    const metadata = config.clientMetadata()
    await signIn(config, undefined, undefined, { scope: 'openid read:orders' })
    const manage = (method, body) => fetch(metadata.registration_client_uri, {
      method, headers: { authorization: `Bearer ${metadata.registration_access_token}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    })
    const shown = await (await manage('GET')).json()
    assert.equal(shown.client_name, 'Registered')
    const changed = await (await manage('PUT', { client_id: metadata.client_id, client_name: 'Renamed', redirect_uris: [callback], token_endpoint_auth_method: 'client_secret_post' })).json()
    assert.equal(changed.client_name, 'Renamed')
    assert.equal((await manage('GET')).status, 401) // the token was replaced
    metadata.registration_access_token = changed.registration_access_token
    assert.equal((await manage('DELETE')).status, 204)
    await assert.rejects(oidc.clientCredentialsGrant(config), { error: 'invalid_client' })
  },
  // The last, for it ends the person's session.
  async 'logout'() {
    const tokens = await signIn(web, undefined, undefined, { scope: 'openid read:orders' })
    const { sub, sid } = tokens.claims()
    const state = oidc.randomState()
    const to = oidc.buildEndSessionUrl(web, { id_token_hint: tokens.id_token, post_logout_redirect_uri: given.bye, state })
    assert.equal((await person.visit(to, given.bye)).searchParams.get('state'), state)
    const keys = createRemoteJWKSet(new URL(web.serverMetadata().jwks_uri))
    const verify = (token) => jwtVerify(token, keys, { issuer, audience: 'web', typ: 'logout+jwt', requiredClaims: ['jti', 'exp', 'events'] })
    const { payload } = await verify(await logoutToken(async (token) => (await verify(token)).payload.sid === sid))
    assert.equal(payload.sub, sub)
    assert.ok('http://schemas.openid.net/event/backchannel-logout' in payload.events)
    assert.ok(!('nonce' in payload))
    assert.equal(await active(tokens.access_token), false)
    await assert.rejects(oidc.refreshTokenGrant(web, tokens.refresh_token), { error: 'invalid_grant' })
  },
})
