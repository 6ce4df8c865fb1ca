// @ts-check
/**
 * `PushService` gives the events of a stream as observables. The stream is closed when its injector is destroyed.
 * @import { Subscriber } from "rxjs"
 * @import { PushService as Declared } from "./angular.js"
 * @import { Failure, Message, Options, StateChange } from "../push-client.js"
 */

import { DestroyRef, inject } from "@angular/core";
import { Observable } from "rxjs";
import { PushClient } from "../push-client.js";

/** @implements {Declared} */
export class PushService {
  /** @param {string | URL} url @param {Options} options */
  constructor(url, options = {}) {
    this.client = new PushClient(url, options);
    /** @type {Observable<StateChange>} */
    this.state$ = this.#observe("statechange");
    /** @type {Observable<Failure>} */
    this.errors$ = this.#observe("error");
  }

  /**
   * @param {string} type
   * @returns {Observable<Message>}
   */
  on(type) {
    return new Observable((subscriber) => {
      const next = (/** @type {Message} */ message) => subscriber.next(message);
      this.client.on(type, next);
      const stop = this.#completeWhenClosed(subscriber);
      return () => {
        this.client.off(type, next);
        stop();
      };
    });
  }

  close() {
    this.client.close();
  }

  /**
   * @param {string} name
   * @returns {Observable<any>}
   */
  #observe(name) {
    return new Observable((subscriber) => {
      const next = (/** @type {Event} */ event) => subscriber.next(/** @type {CustomEvent} */ (event).detail);
      if (name === "statechange") subscriber.next({ state: this.client.state });
      this.client.addEventListener(name, next);
      const stop = this.#completeWhenClosed(subscriber);
      return () => {
        this.client.removeEventListener(name, next);
        stop();
      };
    });
  }

  /**
   * @param {Subscriber<any>} subscriber
   * @returns {() => void} A function that stops waiting for the close.
   */
  #completeWhenClosed(subscriber) {
    const check = () => {
      if (this.client.state === "closed") subscriber.complete();
    };
    this.client.addEventListener("statechange", check);
    check();
    return () => this.client.removeEventListener("statechange", check);
  }
}

/** @type {typeof import("./angular.js").providePush} */
export function providePush(url, options) {
  return {
    provide: PushService,
    useFactory: () => {
      const service = new PushService(url, options);
      inject(DestroyRef).onDestroy(() => service.close());
      return service;
    },
  };
}
