// Drives npm ws, unmodified, as client and as service, with gatehouse between
// them. It says {"port"} of the service, is told {"url",
// "host"} of the gateway, asks with {"life"} for a token that lives so many
// seconds, and says {"done"} in the end.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import { WebSocket, WebSocketServer } from 'ws'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const said = async () => JSON.parse((await lines.next()).value)
const say = (message) => console.log(JSON.stringify(message))

const service = new WebSocketServer({
  host: '127.0.0.1', port: 0, maxPayload: 8 << 20,
  perMessageDeflate: { serverNoContextTakeover: true, clientMaxWindowBits: 12, threshold: 0 },
  handleProtocols: (offered) => (offered.has('chat.v1') ? 'chat.v1' : false),
})
await once(service, 'listening')
const closed = [] // what the service heard at the end of each connection
let agreed // the lines of the service's 101
service.on('headers', (headers) => { agreed = headers })
service.on('connection', (ws, request) => {
  ws.request = request
  ws.on('close', (code, reason) => closed.push([code, String(reason)]))
  ws.on('error', () => {})
  ws.on('message', (data, binary) => {
    if (!binary && String(data) === 'close 4002') ws.close(4002, 'from the service')
    else if (!binary && String(data) === 'ping me') ws.ping('from the service')
    else ws.send(data, { binary })
  })
  ws.on('pong', (data) => ws.send('pong ' + data))
})
say({ port: service.address().port })
const { url, host } = await said()
const done = []

// open resolves with the socket, or with the status of the refusal.
const open = (token, protocols = [], options = {}) => new Promise((resolve, reject) => {
  const headers = { Host: host }
  if (token) headers.Authorization = 'Bearer ' + token
  const ws = new WebSocket(url, protocols, { headers, maxPayload: 8 << 20, ...options })
  ws.once('upgrade', (response) => { ws.response = response })
  ws.once('open', () => resolve(ws))
  ws.once('unexpected-response', (_, response) => { response.resume(); resolve(response) })
  ws.once('error', reject)
})
const message = async (ws) => { const [data, binary] = await once(ws, 'message'); return binary ? data : String(data) }
const token = async (life) => { say({ life }); return (await said()).token }
const eventually = async (what, ok) => {
  for (const end = Date.now() + 20_000; !ok(); await new Promise((r) => setTimeout(r, 10))) {
    assert.ok(Date.now() < end, what)
  }
}

for (const [name, credential] of [['without a token', ''], ['with a bad token', 'x.y.z']]) {
  const refusal = await open(credential)
  assert.equal(refusal.statusCode, 401, name)
  assert.match(refusal.headers['www-authenticate'], /^Bearer/)
  assert.equal(service.clients.size, 0)
  done.push('401 ' + name)
}

const good = await token(600)
let ws = await open(good, ['chat.v2', 'chat.v1'])
assert.equal(ws.protocol, 'chat.v1')
done.push('subprotocol')

const extensions = ws.response.headers['sec-websocket-extensions']
assert.ok(agreed.includes('Sec-WebSocket-Extensions: ' + extensions), extensions)
assert.match(extensions, /^permessage-deflate;.* server_no_context_takeover/)
const [peer] = service.clients
assert.ok(peer.extensions.includes('permessage-deflate'))
assert.equal(peer.request.headers.authorization, undefined)
const text = 'compress me '.repeat(100_000)
ws.send(text)
assert.equal(await message(ws), text)
done.push('permessage-deflate')

ws.ping('from the client')
assert.equal(String((await once(ws, 'pong'))[0]), 'from the client')
ws.send('ping me')
assert.equal(await message(ws), 'pong from the service')
done.push('ping and pong')

for (const part of ['frag', 'men', 'ted']) ws.send(part, { fin: part === 'ted' })
assert.equal(await message(ws), 'fragmented')
done.push('fragments')

const large = Buffer.alloc(1 << 20, Uint8Array.from({ length: 251 }, (_, i) => i))
ws.send(large, { compress: false })
assert.ok(large.equals(await message(ws)))
done.push('1 MiB')

ws.close(4001, 'from the client')
assert.deepEqual((await once(ws, 'close')).map(String), ['4001', 'from the client'])
await eventually('the service hears the close code', () => closed.length === 1)
assert.deepEqual(closed.shift(), [4001, 'from the client'])
ws = await open(good, [], { perMessageDeflate: false })
assert.equal(ws.extensions, '')
ws.send('close 4002')
assert.deepEqual((await once(ws, 'close')).map(String), ['4002', 'from the service'])
await eventually('the service ends', () => closed.length === 1)
closed.shift()
done.push('close codes')

// A busy machine may take longer than the token lives.
for (let life = 3; ; life *= 2) {
  ws = await open(await token(life))
  if (!(ws instanceof WebSocket)) {
    assert.ok(life < 60, 'no token lives long enough')
    continue
  }
  assert.equal((await once(ws, 'close'))[0], 1008)
  await eventually('the service is told', () => closed.length === 1)
  assert.equal(closed.shift()[0], 1008)
  done.push('1008 for an expired token')
  break
}
service.close()
say({ done })
process.exit(0)
