// Many PushClients in one process, for tests in Python: node herd.mjs URL COUNT
//
// Node has no EventSource, so this file has a small one that uses fetch. Each line on stdout is an event or a
// change of the state: {"client", "what": "open" | "waiting" | "closed" | "event", "at" (ms), "data"}.

import {createParser} from 'eventsource-parser'
import {PushClient} from '../../flask_sse_push/static/push-client.js'

// A global of browsers that Node does not have.
globalThis.navigator ??= {onLine: true}

class NodeEventSource extends EventTarget {
  static CONNECTING = 0
  static OPEN = 1
  static CLOSED = 2
  readyState = 0
  #abort = new AbortController()
  #lastEventId = ''

  constructor(url) {
    super()
    this.url = String(url)
    this.#read().catch(() => this.#failed(0))
  }

  async #read() {
    const headers = {Accept: 'text/event-stream'}
    const response = await fetch(this.url, {headers, signal: this.#abort.signal})
    const type = response.headers.get('content-type') ?? ''
    // [spec] Any other status or type: "fail the connection".
    if (response.status !== 200 || !type.startsWith('text/event-stream')) {
      await response.body?.cancel()
      return this.#failed(2)
    }
    this.readyState = 1
    this.dispatchEvent(new Event('open'))
    const parser = createParser({onEvent: (event) => this.#dispatch(event)})
    const text = new TextDecoder()
    for await (const chunk of response.body) parser.feed(text.decode(chunk, {stream: true}))
    this.#failed(0)
  }

  #dispatch({event, data, id}) {
    if (this.readyState !== 1) return
    if (id !== undefined) this.#lastEventId = id
    const init = {data, lastEventId: this.#lastEventId}
    this.dispatchEvent(new MessageEvent(event ?? 'message', init))
  }

  #failed(readyState) {
    if (this.readyState === 2) return
    this.readyState = readyState
    this.dispatchEvent(new Event('error'))
  }

  close() {
    this.readyState = 2
    this.#abort.abort()
  }
}

const [url, count] = process.argv.slice(2)

function print(client, what, data) {
  process.stdout.write(`${JSON.stringify({client, what, at: Date.now(), data})}\n`)
}

for (let n = 0; n < Number(count); n += 1) {
  const client = new PushClient(`${url}&herd=${n}`, {EventSource: NodeEventSource})
  client.addEventListener('statechange', ({detail}) => print(n, detail.state, detail.reason))
  client.on('message', ({data}) => print(n, 'event', data))
}
