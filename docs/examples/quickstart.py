"""The app of the quickstart page."""

from flask import Flask, request

from flask_sse_push import sse

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")

PAGE = """<!doctype html><title>Hello</title>
<button>Say hello to everybody</button><ul></ul>
<script type="module">
  import { PushClient } from "/stream/client/push-client.js";
  const push = new PushClient("/stream");
  push.on("greeting", ({ data }) => {
    const line = document.createElement("li");
    line.textContent = data.message;
    document.querySelector("ul").append(line);
  });
  document.querySelector("button").onclick = () => fetch("/hello", { method: "POST", body: "Hello!" });
</script>"""


@app.get("/")
def page() -> str:
    return PAGE


@app.post("/hello")
def hello() -> str:
    return sse.publish({"message": request.get_data(as_text=True)}, type="greeting")
