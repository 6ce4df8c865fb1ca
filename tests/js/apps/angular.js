/** A page whose component provides the service, so the stream closes together with the component. */

import "@angular/compiler";
import { ChangeDetectorRef, Component, createComponent, inject, provideZonelessChangeDetection } from "@angular/core";
import { createApplication } from "@angular/platform-browser";
import { providePush, PushService } from "../../../flask_sse_push/static/frameworks/angular.js";

window.received = [];
window.opened = [];
const app = await createApplication({ providers: [provideZonelessChangeDetection()] });
let mounted = [];

function pricesOf(channel) {
  class Prices {
    channel = channel;
    state = "";
    count = 0;
    last = "-";

    constructor() {
      const push = inject(PushService);
      const view = inject(ChangeDetectorRef);
      push.state$.subscribe({
        next: ({ state }) => ((this.state = state), view.markForCheck()),
        complete: () => window.received.push([channel, "complete", this.count]),
      });
      push.on("sse.open").subscribe(({ data }) => window.opened.push(...data.channels));
      push.on("price").subscribe(({ data }) => {
        window.received.push([channel, data, this.count++]);
        this.last = JSON.stringify(data);
        view.markForCheck();
      });
    }
  }
  const providers = [providePush(`/stream?channels=${channel}`)];
  return Component({ selector: "x-prices", template: `<p id="shown">{{ channel }} {{ state }} {{ count }} {{ last }}</p>`, providers })(Prices);
}

window.unmount = () => {
  for (const each of mounted) each.destroy();
  mounted = [];
};
window.mount = (channel) => {
  window.unmount();
  const hostElement = document.body.appendChild(document.createElement("x-prices"));
  const component = createComponent(pricesOf(channel), { environmentInjector: app.injector, hostElement });
  app.attachView(component.hostView);
  mounted.push(component);
};
