// What the scripts of flows share: a person at a browser, the logout tokens that
// came, and the report, which is one line of JSON for each flow.
//
//   import { given, person, report } from './kit.mjs'
//   await report({ async code() { … } })
//
// given is the script's argument: where the server is and who its clients are.
// Certificates of the server are verified: NODE_EXTRA_CA_CERTS names their CA.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Agent, fetch as fetchWith } from 'undici'

export const given = JSON.parse(process.argv[2])

// What passes is remembered, so that logs can be searched for it.
const secrets = new Set()
const secretFields = ['access_token', 'refresh_token', 'id_token', 'device_code', 'client_secret', 'registration_access_token', 'logout_token',
  'code', 'code_verifier', 'client_assertion', 'request', 'subject_token', 'token', 'password', 'csrf']
const remember = (value) => { if (value?.length >= 16) secrets.add(value) }

const overPlain = globalThis.fetch
const remembering = (send) => async (url, options = {}) => {
  const { headers, body } = options
  remember(new Headers(headers).get('dpop'))
  for (const name of secretFields) if (body instanceof URLSearchParams) remember(body.get(name))
  remember(new URL(url).searchParams.get('request'))
  const answer = await send(url, options)
  for (const cookie of answer.headers.getSetCookie()) remember(/=([^;]*)/.exec(cookie)[1])
  const to = answer.headers.get('location')
  if (to) remember(new URL(to, url).searchParams.get('code'))
  if (/json/.test(answer.headers.get('content-type'))) {
    const said = await answer.clone().json()
    for (const name of secretFields) remember(said[name])
  }
  return answer
}
globalThis.fetch = remembering(overPlain)

// Person is somebody at a browser, who signs in when asked and allows what is
// asked for.
class Person {
  #cookies = new Map()

  async #open(url, form) {
    const headers = { cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ') }
    if (form) headers.origin = new URL(url).origin
    const answer = await fetch(url, { redirect: 'manual', headers, ...(form && { method: 'POST', body: form }) })
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie)
      this.#cookies.set(name, value)
    }
    return answer
  }

  // visit goes where a browser would be sent, and returns the URL with which it
  // comes to a place that begins with until, or, without that, the last page.
  async visit(start, until) {
    let url = new URL(start).href
    let form
    for (let steps = 0; steps < 20; steps++) {
      const answer = await this.#open(url, form)
      form = undefined
      const to = answer.headers.get('location')
      if (to) {
        url = new URL(to, url).href
        if (until && url.startsWith(until)) return new URL(url)
        continue
      }
      const page = await answer.text()
      const found = /<form method="post" action="([^"]+)">([^]*?)<\/form>/.exec(page)
      if (answer.status !== 200 || !found) {
        assert.ok(!until && answer.status === 200, `${answer.status} at ${url}: ${page}`)
        return page
      }
      form = this.#answers(found[2])
      url = new URL(decode(found[1]), url).href
    }
    throw new Error(`no end after ${url}`)
  }

  #answers(fields) {
    const form = new URLSearchParams()
    for (const [input] of fields.matchAll(/<input[^>]*>/g)) {
      const name = /name="([^"]*)"/.exec(input)?.[1]
      const value = decode(/value="([^"]*)"/.exec(input)?.[1] ?? '')
      if (name) form.set(name, { username: given.user[0], password: given.user[1] }[name] ?? value)
    }
    if (/name="decision"/.test(fields)) form.set('decision', 'allow')
    return form
  }
}

const decode = (text) => text.replaceAll('&amp;', '&').replaceAll('&#43;', '+').replaceAll('&#34;', '"').replaceAll('&#39;', "'")

export const person = new Person()

// withCertificate is a fetch over connections that show a client certificate.
export function withCertificate([cert, key]) {
  const dispatcher = new Agent({
    connect: { cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(process.env.NODE_EXTRA_CA_CERTS) },
  })
  return remembering((url, options) => fetchWith(url, { ...options, dispatcher }))
}

// logoutToken waits for one that satisfies a test, among those that the
// application at given.told was sent.
export async function logoutToken(wanted) {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((later) => setTimeout(later, 20))) {
    for (const token of await (await overPlain(given.told)).json()) {
      remember(token)
      if (await wanted(token)) return token
    }
  }
  throw new Error('no logout token came')
}

// report runs the flows one after the other and says of each how it went.
export async function report(flows) {
  for (const [flow, run] of Object.entries(flows)) {
    const line = { flow }
    try {
      await run()
    } catch (error) {
      line.error = [error.stack, error.cause && JSON.stringify(error.cause, Object.getOwnPropertyNames(error.cause))].filter(Boolean).join('\n')
    }
    console.log(JSON.stringify(line))
  }
  console.log(JSON.stringify({ secrets: [...secrets] }))
  process.exit(0)
}
