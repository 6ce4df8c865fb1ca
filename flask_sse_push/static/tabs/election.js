/** Which of the tabs leads: whoever holds a Web Lock. It passes on when its tab goes, and is taken from a tab that
 * does not answer. */

/** Ms between looks at the leader, and of silence until it is asked. */
const LOOK = 200;

/** Ms in which a leader must answer. It is doubled by each lock that was taken lately: a busy machine calms down. */
const ANSWER = 400;

/** Ms in which a taken lock is remembered, and how many of them count. */
const LATELY = 30_000;
const MOST = 5;

/** A look that comes so much later than the one before was not held up by the leader, but by this tab. */
const ASLEEP = { visible: 3 * LOOK, hidden: 5000 };

export class Election {
  #name;
  #on;
  #leading = null; // ends the lead
  #over = new AbortController();
  #heard = performance.now();
  #asked = 0;
  #looked = performance.now();
  #taken = []; // when locks were taken
  #timer;

  /** @param {object} on `lead(taken)`, `stepDown()`, `ask()`. */
  constructor(name, on) {
    this.#name = name;
    this.#on = on;
    this.#stand();
    this.#timer = setInterval(() => this.#look(), LOOK);
  }

  /** To be called when a tab tells that it took the lock from another. */
  taken() {
    this.#taken = [...this.#taken, performance.now()].slice(-MOST);
  }

  /** To be called for whatever the leader says. */
  heard() {
    this.#heard = performance.now();
    this.#asked = 0;
  }

  stop() {
    clearInterval(this.#timer);
    this.#over.abort();
    this.#stepDown();
  }

  /** Waits in line for the lock. */
  async #stand() {
    const wait = new AbortController();
    this.#over.signal.addEventListener("abort", () => wait.abort());
    this.#line = wait;
    await this.#hold({ signal: wait.signal });
  }

  #line = null;

  async #hold(options) {
    try {
      await navigator.locks.request(this.#name, options, () => this.#lead(options.steal === true));
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      if (options.signal?.aborted) return; // left the line
      this.#stepDown(); // another tab has taken the lock: this one must have been asleep
      if (!this.#over.signal.aborted) this.#stand();
    }
  }

  #lead(taken) {
    if (this.#over.signal.aborted) return undefined;
    return new Promise((end) => {
      this.#leading = end;
      this.#on.lead(taken);
    });
  }

  #stepDown() {
    const end = this.#leading;
    if (!end) return;
    this.#leading = null;
    this.heard();
    this.#on.stepDown();
    end();
  }

  #look() {
    const now = performance.now();
    this.#taken = this.#taken.filter((then) => now - then < LATELY);
    const slept = now - this.#looked > ASLEEP[document.visibilityState];
    this.#looked = now;
    if (this.#leading) return;
    if (slept) return this.heard();
    if (!this.#asked && now - this.#heard >= LOOK) {
      this.#asked = now;
      this.#on.ask();
    } else if (this.#asked && now - this.#asked >= ANSWER * 2 ** this.#taken.length) {
      this.heard();
      this.#line.abort();
      this.#hold({ steal: true });
    }
  }
}
