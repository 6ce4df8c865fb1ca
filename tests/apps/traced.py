"""An app that traces all its events, with a page that reports them. The spans go to the file SPANS."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from flask_sse_push import sse
from tests.support import spans

spans.provide(spans.FileExporter(Path(os.environ["SPANS"])))
app = Flask(__name__)
app.config.update(SSE_PUSH_PUBLIC_CHANNELS="*", SSE_PUSH_TRACE=1)
app.register_blueprint(sse, url_prefix="/stream")

PAGE = """<!doctype html><link rel="icon" href="data:,"><title>connecting</title><script type="module">
import { PushClient } from "/stream/client/push-client.js";
import { report } from "/stream/client/report.js";
const push = new PushClient("/stream?channels=a", { transport: "fetch" });
report(push, "/stream/report");
push.on("news", ({ data }) => { document.title = data; });
push.addEventListener("statechange", ({ detail }) => { document.title = detail.state; });
</script>"""


@app.get("/")
def page() -> str:
    return PAGE


@app.post("/publish/<data>")
def publish(data: str) -> str:
    with spans.view():
        return sse.publish(data, type="news", channel="a")
