import type { Provider } from "@angular/core";
import type { Observable } from "rxjs";
import type { Failure, Message, Options, PushClient, StateChange } from "../push-client.js";

/** A stream as observables. It is closed with the injector that made it, of a component or of the app. */
export class PushService {
  constructor(url: string | URL, options?: Options);
  readonly client: PushClient;
  /** Where it stands, and each change. Completes when the stream is closed for good. */
  readonly state$: Observable<StateChange>;
  readonly errors$: Observable<Failure>;
  /** Events of a type, "*" for all. Completes when the stream is closed for good. */
  on<Data = any>(type: string): Observable<Message<Data>>;
  close(): void;
}

/** Provides `PushService`; each injector that has it in its providers has a stream of its own. */
export function providePush(url: string | URL, options?: Options): Provider;
