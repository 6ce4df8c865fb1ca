// Decodes event streams with eventsource-parser, for tests in Python.
//
// Each line on stdin is a JSON list of streams, each stream a list of its chunks in base64. Each line on
// stdout is the answer: for every stream {"events": [{"type", "data", "id", "retry"}], "errors": [string]}.

import {createInterface} from 'node:readline'
import {createParser} from 'eventsource-parser'

function decode(chunks) {
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
  // The parser takes text: a character may be spread over two chunks of bytes.
  const text = new TextDecoder()
  for (const chunk of chunks) {
    parser.feed(text.decode(Buffer.from(chunk, 'base64'), {stream: true}))
  }
  return {events, errors}
}

for await (const line of createInterface({input: process.stdin})) {
  process.stdout.write(`${JSON.stringify(JSON.parse(line).map(decode))}\n`)
}
