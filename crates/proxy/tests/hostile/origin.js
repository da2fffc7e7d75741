// A server of HTTP/1 by node, as lenient as it can be: `origin.js PORT LOG`. Each request is one line of the log.
'use strict'
const fs = require('fs')
const http = require('http')
const [port, log] = process.argv.slice(2)

const told = (status, first, rest) =>
  fs.appendFileSync(log, `${status} ${first} ${JSON.stringify(rest)}\n`)

const server = http.createServer({ insecureHTTPParser: true, keepAliveTimeout: 60000, requestTimeout: 0 }, (request, response) => {
  const parts = []
  request.on('data', part => parts.push(part))
  request.on('error', () => {})
  request.on('close', () => {
    if (!request.complete) told(499, `${request.method} ${request.url} HTTP/${request.httpVersion}`, {})
  })
  request.on('end', () => {
    told(200, `${request.method} ${request.url} HTTP/${request.httpVersion}`, {
      headers: request.rawHeaders,
      trailers: request.rawTrailers,
      body: Buffer.concat(parts).toString('latin1')
    })
    response.end('fine')
  })
})
server.on('checkExpectation', (request, response) => {
  told(417, `${request.method} ${request.url} HTTP/${request.httpVersion}`, {})
  response.writeHead(417, { connection: 'close' }).end()
})
server.on('connect', (request, socket) => {
  told(501, `${request.method} ${request.url} HTTP/${request.httpVersion}`, {})
  socket.destroy()
})
server.on('clientError', (error, socket) => {
  // A connection that is only closed is no request.
  const raw = error.rawPacket ? error.rawPacket.toString('latin1') : ''
  if (raw) told(400, '- - -', { error: error.code, raw })
  socket.destroy()
})
server.listen(Number(port), '127.0.0.1')
