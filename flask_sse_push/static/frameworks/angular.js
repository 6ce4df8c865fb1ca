/** `PushService`: a stream as observables, closed with the injector that made it. */

import { DestroyRef, inject } from "@angular/core";
import { Observable } from "rxjs";
import { PushClient } from "../push-client.js";

export class PushService {
  constructor(url, options = {}) {
    this.client = new PushClient(url, options);
    this.state$ = this.#observe("statechange");
    this.errors$ = this.#observe("error");
  }

  on(type) {
    return new Observable((subscriber) => {
      const hear = (message) => subscriber.next(message);
      this.client.on(type, hear);
      const stop = this.#complete(subscriber);
      return () => {
        this.client.off(type, hear);
        stop();
      };
    });
  }

  close() {
    this.client.close();
  }

  #observe(name) {
    return new Observable((subscriber) => {
      const hear = ({ detail }) => subscriber.next(detail);
      if (name === "statechange") subscriber.next({ state: this.client.state });
      this.client.addEventListener(name, hear);
      const stop = this.#complete(subscriber);
      return () => {
        this.client.removeEventListener(name, hear);
        stop();
      };
    });
  }

  /** Completes when the stream is closed for good. */
  #complete(subscriber) {
    const look = () => this.client.state === "closed" && subscriber.complete();
    this.client.addEventListener("statechange", look);
    look();
    return () => this.client.removeEventListener("statechange", look);
  }
}

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
