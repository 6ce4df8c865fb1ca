// @ts-check
/** Reads from the server's admin routes, and writes to them. */

/** Why a request brought nothing: the server refused it, or could not serve it, or did not answer (status 0). */
export class Failure extends Error {
  /** @param {number} status @param {string} message @param {Record<string, any>} [details] */
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }

  /** Whether the user is not signed in any more, or is no admin any more. */
  get isRefusal() {
    return this.status === 401 || this.status === 403;
  }
}

/** @typedef {{ user: string, now: number, version: string, channel: string, broker: string, prefix: string,
 *   write_headers: Record<string, string> | null, writes_off: string | null }} Session */

/** The server's admin routes. */
export class Server {
  /** @type {Promise<Session> | null} */ #session = null;
  #ahead = 0; // by how many seconds the server's clock is ahead of the browser's

  /** Returns the server's time, in Unix seconds. */
  now() {
    return Date.now() / 1000 + this.#ahead;
  }

  /** Returns who is signed in, and what a write needs. Asks the server once. @returns {Promise<Session>} */
  session() {
    this.#session ??= this.read("session").then((session) => {
      this.#ahead = session.now - Date.now() / 1000;
      return session;
    });
    this.#session.catch(() => (this.#session = null));
    return this.#session;
  }

  /**
   * Returns what a route answers.
   * @param {string} route @param {Record<string, string | null>} [query] Empty parameters are left out.
   * @param {AbortSignal} [signal] @returns {Promise<any>}
   * @throws {Failure} if the answer is an error, or if no answer comes.
   */
  read(route, query = {}, signal) {
    const url = address(route);
    for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
    return answerOf(fetch(url, { signal, headers: { Accept: "application/json" } }));
  }

  /**
   * Asks a route to change something. Every write of the page goes through this method, which sends the CSRF token.
   * @param {string} route @param {object} body @returns {Promise<any>}
   * @throws {Failure} if the answer is an error, or if no answer comes.
   */
  async write(route, body) {
    try {
      return await this.#post(route, body);
    } catch (error) {
      if (!(error instanceof Failure) || !error.details.csrf) throw error;
      this.#session = null; // the token has expired
      return this.#post(route, body);
    }
  }

  /** @param {string} route @param {object} body */
  async #post(route, body) {
    const { write_headers: token, writes_off: why } = await this.session();
    if (!token) throw new Failure(403, why ?? "The server accepts no writes.");
    const headers = { ...token, Accept: "application/json", "Content-Type": "application/json" };
    return answerOf(fetch(address(route), { method: "POST", headers, body: JSON.stringify(body) }));
  }
}

/** @param {string} route */
const address = (route) => new URL(`admin/${route}`, document.baseURI);

/** @param {Promise<Response>} request */
async function answerOf(request) {
  const response = await request.catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "The server does not answer.");
  });
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  const body = isJson ? await response.json().catch(() => null) : null;
  if (response.ok && !body) throw new Failure(401, "The server sent another page.");
  if (!response.ok) throw new Failure(response.status, body?.message ?? `HTTP ${response.status}`, body?.details ?? {});
  return body;
}
