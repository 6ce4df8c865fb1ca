// Decodes event streams for tests in Python: node decode.mjs eventsource-parser|undici
//
// undici's is the decoder of Node's own EventSource. It takes bytes, eventsource-parser takes text.
//
// Each line on stdin is a JSON list of streams, each stream a list of its chunks in base64. Each line on
// stdout is the answer: for every stream {"events": [{"type", "data", "id", "retry"}], "errors": [string]}.

import {createInterface} from 'node:readline'
import {createRequire} from 'node:module'
import {createParser} from 'eventsource-parser'

function decodeByUndici(chunks) {
  const {EventSourceStream} = createRequire(import.meta.url)('undici/lib/web/eventsource/eventsource-stream.js')
  const events = []
  const errors = []
  const state = {lastEventId: '', reconnectionTime: null, origin: ''}
  const stream = new EventSourceStream({
    eventSourceSettings: state,
    push({type, options}) {
      events.push({type, data: options.data, id: options.lastEventId || null, retry: state.reconnectionTime})
      state.reconnectionTime = null
    },
  })
  stream.on('error', (error) => errors.push(error.message))
  // Not by `write`, because the answer must be complete when this function returns.
  const done = (error) => error && errors.push(error.message)
  for (const chunk of chunks) stream._transform(Buffer.from(chunk, 'base64'), 'buffer', done)
  return {events, errors}
}

function decodeByParser(chunks) {
  const events = []
  const errors = []
  let retry = null
  const parser = createParser({
    onEvent(event) {
      events.push({type: event.event ?? 'message', data: event.data, id: event.id ?? null, retry})
      retry = null
    },
    onRetry(milliseconds) {
      retry = milliseconds
    },
    onError(error) {
      errors.push(error.message)
    },
  })
  // The parser takes text. The bytes of one character may lie in two chunks, so the decoder keeps its state.
  const text = new TextDecoder()
  for (const chunk of chunks) {
    parser.feed(text.decode(Buffer.from(chunk, 'base64'), {stream: true}))
  }
  return {events, errors}
}

const decode = process.argv[2] === 'undici' ? decodeByUndici : decodeByParser

for await (const line of createInterface({input: process.stdin})) {
  process.stdout.write(`${JSON.stringify(JSON.parse(line).map(decode))}\n`)
}
