import type { Provider } from "@angular/core";
import type { Observable } from "rxjs";
import type { Failure, Message, Options, PushClient, StateChange } from "../push-client.js";

/** A stream as observables. It closes together with the injector that made it: a component's, or the app's. */
export class PushService {
  constructor(url: string | URL, options?: Options);
  readonly client: PushClient;
  /** The state, and each change of it. Completes when the stream is closed for good. */
  readonly state$: Observable<StateChange>;
  readonly errors$: Observable<Failure>;
  /** Events of a type, "*" for all. Completes when the stream is closed for good. */
  on<Data = any>(type: string): Observable<Message<Data>>;
  close(): void;
}

/** Provides `PushService`. Each injector with this provider has a stream of its own. */
export function providePush(url: string | URL, options?: Options): Provider;
