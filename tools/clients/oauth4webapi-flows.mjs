// Drives every flow with oauth4webapi, unmodified: the level below
// openid-client, where each request and each answer is the caller's.
//
//   node oauth4webapi-flows.mjs '{"issuer": …, "api": …, "told": URL, "callback": …, "clients": …, …}'
//
// It prints {"flow": NAME} for each that went well, with "error" for others.
import assert from 'node:assert/strict'
import { importJWK } from 'jose'
import * as oauth from 'oauth4webapi'
import { given, logoutToken, person, report, withCertificate } from './kit.mjs'

const { issuer, api, callback, clients, initial, key } = given
const privateKey = { key: await importJWK(key, 'ES256'), kid: key.kid }
const scope = 'openid profile email offline_access read:orders'
const server = new URL(issuer)
const as = await oauth.processDiscoveryResponse(server, await oauth.discoveryRequest(server))
const client = (client_id, auth, more) => ({ auth, client_id, ...more })
const web = client('web', oauth.ClientSecretBasic(clients.web))
const rs = client('rs', oauth.ClientSecretPost(clients.rs))
const signer = client('signer', oauth.PrivateKeyJwt(privateKey))

// proven sends a request once more where the server demands a nonce first.
const proven = (send) => send().catch((error) => {
  if (!oauth.isDPoPNonceError(error)) throw error
  return send()
})

const pushed = (c, parameters, options) => proven(async () => {
  const answer = await oauth.pushedAuthorizationRequest(as, c, c.auth, parameters, options)
  const { request_uri } = await oauth.processPushedAuthorizationResponse(as, c, answer)
  return { client_id: c.client_id, request_uri }
})
const signed = async (c, parameters) =>
  ({ client_id: c.client_id, request: await oauth.issueRequestObject(as, c, parameters, privateKey) })

// signIn sends the person with what make makes of the parameters, and redeems
// the code that comes back.
async function signIn(c, { make = (_, parameters) => parameters, options, asked = scope } = {}) {
  const verifier = oauth.generateRandomCodeVerifier()
  const [state, expectedNonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()]
  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams(await make(c, {
    client_id: c.client_id, response_type: 'code', redirect_uri: callback, scope: asked, state, nonce: expectedNonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  }))
  const parameters = oauth.validateAuthResponse(as, c, await person.visit(url, callback), state)
  return proven(async () => {
    const answer = await oauth.authorizationCodeGrantRequest(as, c, c.auth, parameters, callback, verifier, options)
    const tokens = await oauth.processAuthorizationCodeResponse(as, c, answer, { expectedNonce, requireIdToken: true })
    await oauth.validateApplicationLevelSignature(as, answer)
    return { ...tokens, claims: oauth.getValidatedIdTokenClaims(tokens) }
  })
}

const refresh = (c, token, options) => proven(async () =>
  oauth.processRefreshTokenResponse(as, c, await oauth.refreshTokenGrantRequest(as, c, c.auth, token, options)))
const own = (c, options, parameters = { scope: 'read:orders' }) => proven(async () =>
  oauth.processClientCredentialsResponse(as, c, await oauth.clientCredentialsGrantRequest(as, c, c.auth, parameters, options)))
// call asks the API; a refusal gives the parameters of its challenge.
const call = (token, path = '/orders/1', options) =>
  proven(() => oauth.protectedResourceRequest(token, 'GET', new URL(path, api), undefined, undefined, options)).then(
    (answer) => answer.status,
    (error) => error.cause[0].parameters,
  )
const introspect = async (c, token, options) => {
  const answer = await oauth.introspectionRequest(as, c, c.auth, token, options)
  const told = await oauth.processIntrospectionResponse(as, c, answer)
  if (options) await oauth.validateApplicationLevelSignature(as, answer)
  return told
}
const revoke = async (c, token) => oauth.processRevocationResponse(await oauth.revocationRequest(as, c, c.auth, token))

await report({
  async 'discovery'() {
    for (const algorithm of ['oidc', 'oauth2']) {
      const found = await oauth.processDiscoveryResponse(server, await oauth.discoveryRequest(server, { algorithm }))
      assert.equal(found.token_endpoint, as.token_endpoint)
    }
    const resource = new URL(issuer)
    const described = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource))
    assert.deepEqual(described.authorization_servers, [issuer])
  },
  async 'code'() {
    const tokens = await signIn(web)
    const answer = await oauth.userInfoRequest(as, web, tokens.access_token)
    assert.equal((await oauth.processUserInfoResponse(as, web, tokens.claims.sub, answer)).email, 'alice@example.com')
    assert.equal(await call(tokens.access_token), 200)
    // The token is a JWT access token for everybody who follows RFC 9068.
    const request = new Request(api, { headers: { authorization: `Bearer ${tokens.access_token}` } })
    assert.equal((await oauth.validateJwtAccessToken(as, request, issuer)).client_id, 'web')
  },
  async 'refresh'() {
    const first = await signIn(web)
    const second = await refresh(web, first.refresh_token)
    assert.notEqual(second.refresh_token, first.refresh_token)
    assert.equal(await call(second.access_token), 200)
  },
  async 'client credentials'() {
    assert.equal(await call((await own(signer)).access_token), 200)
    await assert.rejects(own(web), { error: 'unauthorized_client' })
  },
  async 'private_key_jwt'() {
    const tokens = await signIn(signer)
    await revoke(signer, tokens.refresh_token)
    await assert.rejects(refresh(signer, tokens.refresh_token), { error: 'invalid_grant' })
  },
  async 'pushed request'() {
    assert.equal(await call((await signIn(signer, { make: pushed })).access_token), 200)
  },
  async 'signed request'() {
    assert.equal(await call((await signIn(signer, { make: signed })).access_token), 200)
  },
  async 'signed and pushed request'() {
    await signIn(signer, { make: async (c, parameters) => pushed(c, await signed(c, parameters)) })
  },
  async 'DPoP'() {
    for (const algorithm of ['ES256', 'Ed25519']) {
      const c = client('fapi', oauth.PrivateKeyJwt(privateKey))
      const options = { DPoP: oauth.DPoP(c, await oauth.generateKeyPair(algorithm)) }
      const tokens = await signIn(c, { make: (_, parameters) => pushed(c, parameters, options), options })
      assert.equal(tokens.token_type, 'dpop')
      const next = await refresh(c, tokens.refresh_token, options)
      assert.equal(await call(next.access_token, '/proven', options), 200)
      const answer = await proven(() => oauth.userInfoRequest(as, c, next.access_token, options))
      await oauth.processUserInfoResponse(as, c, tokens.claims.sub, answer)
      assert.equal((await call(next.access_token)).error, 'invalid_token') // as Bearer
    }
  },
  async 'mutual TLS'() {
    for (const [id, certificate] of Object.entries(given.certificates)) {
      const c = client(id, oauth.TlsClientAuth())
      const options = { [oauth.customFetch]: withCertificate(certificate) }
      const { access_token } = await own(c, options)
      assert.equal(await call(access_token, '/certified', options), 200)
      const [other] = Object.values(given.certificates).filter((one) => one !== certificate)
      assert.equal((await call(access_token, '/certified', { [oauth.customFetch]: withCertificate(other) })).error, 'invalid_token')
      await assert.rejects(own(c, { [oauth.customFetch]: withCertificate(other) }), { error: 'invalid_client' })
    }
  },
  async 'device'() {
    const tv = client('tv', oauth.None())
    const started = await oauth.processDeviceAuthorizationResponse(as, tv,
      await oauth.deviceAuthorizationRequest(as, tv, tv.auth, { scope: 'openid read:orders' }))
    const poll = async () => oauth.processDeviceCodeResponse(as, tv, await oauth.deviceCodeGrantRequest(as, tv, tv.auth, started.device_code))
    await assert.rejects(poll(), { error: 'authorization_pending' })
    await person.visit(started.verification_uri_complete)
    assert.equal(await call((await poll()).access_token), 200)
    await assert.rejects(poll(), { error: 'invalid_grant' })
  },
  async 'token exchange'() {
    const tokens = await signIn(web)
    const service = client('exchanger', oauth.ClientSecretBasic(clients.exchanger))
    const type = 'urn:ietf:params:oauth:token-type:access_token'
    const answer = await oauth.genericTokenEndpointRequest(as, service, service.auth, 'urn:ietf:params:oauth:grant-type:token-exchange',
      { subject_token: tokens.access_token, subject_token_type: type })
    const exchanged = await oauth.processGenericTokenEndpointResponse(as, service, answer)
    assert.equal(exchanged.issued_token_type, type)
    assert.equal(await call(exchanged.access_token), 200)
  },
  async 'introspection'() {
    const tokens = await signIn(web)
    assert.equal((await introspect(rs, tokens.access_token)).sub, tokens.claims.sub)
    assert.deepEqual(await introspect(rs, 'nonsense'), { active: false })
  },
  async 'signed introspection'() {
    const tokens = await signIn(web)
    const told = await introspect({ ...rs, introspection_signed_response_alg: 'ES256' }, tokens.access_token, { requestJwtResponse: true })
    assert.equal(told.sub, tokens.claims.sub)
  },
  async 'revocation'() {
    const tokens = await signIn(web)
    await revoke(web, tokens.refresh_token)
    assert.deepEqual(await introspect(rs, tokens.access_token), { active: false })
    await revoke(web, 'nonsense')
  },
  async 'registration'() {
    const metadata = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, {
      client_name: 'Registered', redirect_uris: [callback], scope: 'openid', token_endpoint_auth_method: 'client_secret_basic',
    }, { initialAccessToken: initial }))
    await signIn(client(metadata.client_id, oauth.ClientSecretBasic(metadata.client_secret)), { asked: 'openid' })
    await assert.rejects(async () => oauth.processDynamicClientRegistrationResponse(
      await oauth.dynamicClientRegistrationRequest(as, { redirect_uris: ['javascript:alert(1)'] }, { initialAccessToken: initial })),
    { error: 'invalid_redirect_uri' })
  },
  // The last, for it ends the person's session.
  async 'logout'() {
    const tokens = await signIn(web, { asked: 'openid read:orders' })
    const url = new URL(as.end_session_endpoint)
    url.search = new URLSearchParams({ id_token_hint: tokens.id_token, post_logout_redirect_uri: given.bye, state: 'the state' })
    assert.equal((await person.visit(url, given.bye)).searchParams.get('state'), 'the state')
    await logoutToken((token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).sid === tokens.claims.sid)
    assert.deepEqual(await introspect(rs, tokens.access_token), { active: false })
    assert.equal((await call(tokens.access_token)).error, 'invalid_token')
  },
})
