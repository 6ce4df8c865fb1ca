"""Servers on which a stream costs a thread, or would block the whole server or connection."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.deadline import eventually, stretched
from tests.support.processes import ROOT, accepts, free_port, gunicorn
from tests.support.site import certify
from tests.support.stream import Stream

from .conftest import Serve

#: Programs that run an app on a port, for `python -c`.
RUN = {
    "waitress": "import waitress; waitress.serve(app, port=port, threads=4)",
    "wsgiref": "from wsgiref.simple_server import make_server; make_server('', port, app).serve_forever()",
    "flask without threads": "app.run(port=port, threaded=False)",
    "flask with threads": "app.run(port=port)",
    "flask with processes": "app.run(port=port, threaded=False, processes=4)",
    "gevent": "from gevent.pywsgi import WSGIServer; WSGIServer(('', port), app).serve_forever()",
    "uWSGI": "uwsgi()",
    "uWSGI with threads": "uwsgi('--threads', '4')",
    "uWSGI with gevent": "uwsgi('--gevent', '20', '--gevent-monkey-patch')",
}
#: Runs uWSGI in place of the process, since it wants to import the app itself.
UWSGI = """
def uwsgi(*options):
    import pyuwsgi
    app = ["--module", "tests.apps.plain:app", "--need-app", "--die-on-term"]
    pyuwsgi.run(["--http-socket", f"127.0.0.1:{port}", *app, *options])
"""
PATCH = "from gevent import monkey; monkey.patch_all();"


@contextlib.contextmanager
def server(program: str, broker: str, log: Path) -> Iterator[str]:
    """Runs the plain app with a program until the block ends; gives the address."""
    port = free_port()
    code = PATCH if program.startswith(PATCH) else ""
    if program.startswith("uwsgi"):
        code += f"port = {port}\n{UWSGI}\n{program}"
    else:
        code += f"from tests.apps.plain import app; port = {port}; {program.removeprefix(PATCH)}"
    env = {**os.environ, "SSE_PUSH_BROKER_URL": broker}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=env, stdout=output, stderr=output
        )
    try:
        eventually(lambda: accepts(port), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(60)


def check_refused(response: httpx.Response, status: int, *parts: str) -> None:
    body = response.json()
    assert (response.status_code, body["code"], body["retry"]) == (status, 1001, False)
    assert "Retry-After" not in response.headers
    for part in parts:
        assert part in body["message"]


def errors(log: Path) -> list[str]:
    return [
        line
        for line in log.read_text().splitlines()
        if "streams keep" in line or "streams are refused" in line
    ]


# -- gunicorn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker_class", "threads"), [("sync", "1"), ("gthread", "1")], ids=["sync", "gthread, one thread"]
)
def test_a_stream_that_would_block_the_worker_is_refused(
    serve: Serve, http: httpx.Client, worker_class: str, threads: str
) -> None:
    running = serve("tests.apps.plain:app", "--timeout", "3", "--threads", threads, worker_class=worker_class)
    workers = running.worker_pids()
    for _ in range(3):
        check_refused(
            http.get(f"{running.url}/stream"),
            503,
            f"gunicorn's {worker_class} worker",
            "--threads 100" if worker_class == "gthread" else "gunicorn with -k gevent",
        )
        assert http.get(running.url).text == "hello"
    assert running.worker_pids() == workers
    (told,) = errors(running.log)
    assert "[ERROR] flask_sse_push.transports.generator: streams are refused" in told
    assert running.log.read_text().count("serves one request at a time") == 1


def test_a_stream_on_a_gthread_worker_is_served_and_its_price_told_once(serve: Serve) -> None:
    running = serve("tests.apps.plain:app", "--threads", "4", worker_class="gthread")
    with Stream(f"{running.url}/stream") as one, Stream(f"{running.url}/stream") as other:
        one.next_of("sse.open")
        other.next_of("sse.open")
        (told,) = errors(running.log)
    assert "gunicorn's gthread worker" in told
    assert "run gunicorn with -k gevent" in told
    assert "--threads 100" in told


@pytest.mark.parametrize("worker_class", ["gevent", "gevent_pywsgi"])
def test_a_stream_that_needs_only_a_greenlet_is_no_error(
    serve: Serve, worker_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSE_PUSH_TRANSPORT", "generator")
    running = serve(worker_class=worker_class)
    with Stream(f"{running.url}/stream") as stream:
        stream.next_of("sse.open")
    assert errors(running.log) == []


# -- HTTP/2 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ["gevent", "gthread"])
def test_a_stream_over_gunicorns_http2_is_refused_and_blocks_no_page(
    empty_valkey: str, log: Path, tmp_path: Path, worker_class: str
) -> None:
    trust = certify(tmp_path / "tls")
    options = ["--http-protocols", "h2,h1", "--threads", "4"]
    options += [
        "--certfile",
        str(tmp_path / "tls" / "fullchain.pem"),
        "--keyfile",
        str(tmp_path / "tls" / "privkey.pem"),
    ]
    env = {"SSE_PUSH_BROKER_URL": empty_valkey}
    with gunicorn("tests.apps.plain:app", *options, env=env, worker_class=worker_class, log=log) as running:
        url = f"https://localhost:{running.port}"
        with httpx.Client(http2=True, verify=trust, timeout=20, trust_env=False) as client:
            began = time.monotonic()
            refused = client.get(f"{url}/stream")
            assert refused.http_version == "HTTP/2"
            check_refused(refused, 505, "HTTP/2", "nginx or Caddy", "http_protocols")
            assert client.get(url).text == "hello"
            took = time.monotonic() - began
            print(f"the page after the stream came after {took:.3f} s")
            assert took < stretched(2)
        with httpx.stream("GET", f"{url}/stream", verify=trust, timeout=20, trust_env=False) as stream:
            assert (stream.status_code, stream.http_version) == (200, "HTTP/1.1")
    assert sum("HTTP/2" in line for line in errors(log)) == 1


def test_a_stream_over_gunicorns_cleartext_http2_is_refused(empty_valkey: str, log: Path) -> None:
    options = ["--http-protocols", "h2,h1", "--http2-cleartext", "both"]
    env = {"SSE_PUSH_BROKER_URL": empty_valkey}
    with gunicorn("tests.apps.plain:app", *options, env=env, log=log) as running:
        with httpx.Client(http1=False, http2=True, timeout=20, trust_env=False) as client:
            check_refused(client.get(f"{running.url}/stream"), 505, "HTTP/2")
            assert client.get(running.url).text == "hello"
        with Stream(f"{running.url}/stream") as stream:
            stream.next_of("sse.open")


# -- other servers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("flask without threads", "start it with threads"),
        ("wsgiref", "run gunicorn with -k gevent"),
        ("uWSGI", "run gunicorn with -k gevent"),
        ("gevent", "run gunicorn with -k gevent"),  # without monkey patching, a stream blocks everything
    ],
)
def test_a_server_with_one_thread_refuses_streams_and_serves_pages(
    empty_valkey: str, log: Path, name: str, advice: str
) -> None:
    with server(RUN[name], empty_valkey, log) as url:
        for _ in range(2):  # a connection for each request, because uWSGI closes connections without a word
            check_refused(httpx.get(f"{url}/stream", trust_env=False), 503, "one request at a time", advice)
            assert httpx.get(url, trust_env=False).text == "hello"
    assert len(errors(log)) == 1


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (RUN["waitress"], 1),
        (RUN["flask with processes"], 1),
        (RUN["flask with threads"], 0),
        (PATCH + RUN["gevent"], 0),
        (RUN["uWSGI with threads"], 1),
        (RUN["uWSGI with gevent"], 0),
    ],
    ids=[
        "waitress",
        "flask with processes",
        "flask with threads",
        "gevent, patched",
        "uWSGI",
        "uWSGI, gevent",
    ],
)
def test_a_server_that_can_serve_streams_beside_pages_does_so(
    empty_valkey: str, log: Path, http: httpx.Client, program: str, told: int
) -> None:
    with server(program, empty_valkey, log) as url, Stream(f"{url}/stream") as stream:
        stream.next_of("sse.open")
        assert http.get(url).text == "hello"
    assert len(errors(log)) == told
