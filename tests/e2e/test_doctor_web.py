"""`flask sse doctor --url` on ways to the app with one fault each: one finding, with the remedy.

gunicorn, nginx and Redis are real. A scripted server stands for the proxies that the tests cannot install.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deadline import eventually
from tests.support.doctor import Checkup, examine
from tests.support.doctor_cases import WEB
from tests.support.doctor_proxies import BEGINNINGS, LOCATIONS, NAMES, NGINX, Proxy
from tests.support.processes import ROOT, accepts, free_port, gunicorn, need, redis_server

from .test_doctor_redis import certificate

HEARTBEAT = "2"


class Lab:
    """The servers, each started when the first set-up needs it."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self.folder, self.held = folder, held
        self.apps: list[ExitStack] = []
        self.silent = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]

    @cached_property
    def config(self) -> dict[str, str]:
        """The settings of the app, and of the doctor."""
        return {
            "SSE_PUSH_BROKER_URL": self.held.enter_context(redis_server(self.folder)),
            "SSE_PUSH_HEARTBEAT": HEARTBEAT,
            "SSE_PUSH_PUBLIC_CHANNELS": "a",
        }

    def gunicorn(self, *options: str, env: Mapping[str, str] | None = None, **more: Any) -> int:
        """Starts the app; returns its port."""
        log = self.folder / f"gunicorn-{free_port()}.log"
        env = {**self.config, **(env or {})}
        running = gunicorn("tests.apps.plain:app", *options, env=env, log=log, **more)
        self.apps.append(stack := ExitStack())
        port = stack.enter_context(running).port
        wait_for_page(port)
        return port

    def close_apps(self) -> None:
        """Ends all gunicorns at the same time."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ExitStack.close, self.apps))

    @cached_property
    def app(self) -> int:
        return self.gunicorn()

    @cached_property
    def ports(self) -> dict[str, int]:
        """The ports of nginx, by the name of the location."""
        ports = {name: free_port() for name in LOCATIONS}
        cert, key = certificate(self.folder)
        values = {"upstream": self.app, "dead": free_port(), "silent": self.silent}
        servers = []
        for name, text in LOCATIONS.items():
            tls = f"ssl_certificate {cert}; ssl_certificate_key {key};" if name == "tls" else ""
            listen = f"listen 127.0.0.1:{ports[name]}{' ssl' if tls else ''}; {tls}"
            servers.append(f"server {{ {listen} location / {{ {text.format(**values)} }} }}")
        path = self.folder / "nginx.conf"
        path.write_text(NGINX.format(folder=self.folder, servers="\n".join(servers)))
        process = subprocess.Popen([need("nginx"), "-c", str(path)], stderr=subprocess.DEVNULL)
        self.held.callback(process.wait, 60)
        self.held.callback(process.terminate)
        eventually(lambda: accepts(ports["good"]), 10)
        return ports

    @cached_property
    def proxy(self) -> int:
        """The port of the scripted proxy."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        server.daemon_threads = True
        server.stopping = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.held.callback(server.server_close)
        self.held.callback(server.shutdown)
        self.held.callback(server.stopping.set)  # type: ignore[attr-defined]
        return server.server_port

    def flask_run(self) -> int:
        """Starts Flask's own server without threads; returns its port."""
        port = free_port()
        command = [sys.executable, "-m", "flask", "--app", "tests.apps.plain", "run", "--without-threads"]
        env = {**os.environ, **self.config}
        command += ["--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
        self.held.callback(process.wait, 60)
        self.held.callback(process.terminate)
        eventually(lambda: accepts(port), 20)
        wait_for_page(port)
        return port


def wait_for_page(port: int) -> None:
    """Waits until a worker has started and serves pages."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.get(f"http://127.0.0.1:{port}/").text == "hello"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with ExitStack() as held:
        lab = Lab(tmp_path_factory.mktemp("web"), held)
        held.callback(lab.close_apps)
        yield lab


def stream(port: int, path: str = "stream?channels=a", scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{port}/{path}"


#: The URL of each set-up that needs no more than a URL.
URLS: dict[str, Callable[[Lab], str]] = {
    "web-nobody-listens": lambda lab: stream(free_port()),
    "web-other-ip-version": lambda lab: stream(lab.app, host="[::1]"),
    "web-no-such-host": lambda lab: "http://no-such-host.invalid/stream",
    "no-url": lambda lab: "app.example.com/stream",
    "no-http": lambda lab: stream(int(lab.config["SSE_PUSH_BROKER_URL"].split(":")[2][:-2])),
    "https-to-plain": lambda lab: stream(lab.app, scheme="https"),
    "http-to-https": lambda lab: stream(lab.ports["tls"]),
    "web-untrusted-certificate": lambda lab: stream(lab.ports["tls"], scheme="https", host="localhost"),
    "app-refuses": lambda lab: stream(lab.app, "stream?channels=secret"),
    "wrong-path": lambda lab: stream(lab.app, "sse"),
    "blocked-server": lambda lab: stream(lab.silent),
    "sync-worker": lambda lab: stream(lab.gunicorn(worker_class="sync")),
    "thread-worker": lambda lab: stream(lab.gunicorn("--threads", "8", worker_class="gthread")),
    "few-connections": lambda lab: stream(lab.gunicorn("--worker-connections", "40")),
    "one-thread": lambda lab: stream(lab.flask_run()),
    "memory-for-two": lambda lab: stream(lab.gunicorn(env={"SSE_PUSH_BROKER_URL": "memory://"}, workers=2)),
}
#: Set-ups that start a server of their own.
SERVERS = ("sync-worker", "thread-worker", "few-connections", "one-thread", "memory-for-two")
#: How the doctor's settings differ from the app's.
CONFIGS = {
    "memory-for-two": {"SSE_PUSH_BROKER_URL": "memory://"},
    "other-key": {"SECRET_KEY": "another"},
    "other-settings": {"SSE_PUSH_PREFIX": "another"},
    "other-policy": {"SSE_PUSH_MAX_MESSAGE": "5000"},
}
#: Set-ups in which nothing arrives. The doctor need not wait for it as long as for a busy server.
WITHHELD = {*NAMES, "nginx-buffers", "holds-back-later", "blocked-server"}
#: Set-ups with a test of their own.
APART = ("certificate-of-other-name", "broker-down")
ROWS = [name for name in WEB if name not in APART]
#: How many doctors run at the same time. They mostly wait.
MANY = 8


def url_of(lab: Lab, name: str) -> str:
    if name in URLS:
        return URLS[name](lab)
    if name in LOCATIONS:
        return stream(lab.ports[name])
    if name in NAMES or name in (*BEGINNINGS, "ends-at-once"):
        return stream(lab.proxy, f"{name}/stream?channels=a")
    return stream(lab.app)


Ask = Callable[..., Future[Checkup]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Calls `examine` in another process, in an empty folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flask_sse_push.cli.doctor", "flask.testing"])
    folder = (str(tmp_path_factory.mktemp("doctors")),)
    with ProcessPoolExecutor(MANY, context, initializer=os.chdir, initargs=folder) as pool:

        def call(*options: str, **more: Any) -> Future[Checkup]:
            return pool.submit(examine, *options, **more)

        yield call


@pytest.fixture(scope="module")
def checkups(lab: Lab, ask: Ask) -> Iterator[dict[str, Future[Checkup]]]:
    """Makes all set-ups and lets a doctor examine each of them. Those that start servers come first."""
    assert all((lab.app, lab.ports, lab.proxy))  # two threads must not start the same server

    def check(name: str) -> Checkup:
        url, config = url_of(lab, name), {**lab.config, **CONFIGS.get(name, {})}
        return ask("--url", url, config=config, is_withheld=name in WITHHELD).result()

    with ThreadPoolExecutor(MANY) as pool:
        rows = sorted(ROWS, key=lambda name: name not in SERVERS)
        yield {name: pool.submit(check, name) for name in rows}


@pytest.mark.parametrize("name", ROWS)
def test_a_fault_on_the_way_has_one_finding_with_the_remedy(
    checkups: dict[str, Future[Checkup]], name: str
) -> None:
    checkup, case = checkups[name].result(), WEB[name]
    assert [f"{fault.level} {fault.name}" for fault in checkup.faults()] == [case.found], checkup.faults()
    [fault] = checkup.faults()
    assert case.remedy in fault.advice
    assert fault.why
    assert checkup.code == case.found.startswith("broken")


def test_a_certificate_is_checked_against_the_name(lab: Lab, ask: Ask) -> None:
    url, port = stream(lab.ports["tls"], scheme="https"), lab.ports["tls"]
    right = stream(port, scheme="https", host="localhost")
    trusted = ["--cacert", str(lab.folder / "cert.pem")]
    wrong_name, insecure, correct = (
        ask("--url", *options, config=lab.config)
        for options in ((url, *trusted), (url, "--insecure"), (right, *trusted))
    )
    [fault] = wrong_name.result().faults()
    case = WEB["certificate-of-other-name"]
    assert f"{fault.level} {fault.name}" == case.found
    assert case.remedy in fault.advice
    assert insecure.result().faults() == []
    assert [each.name for each in correct.result().faults()] in (
        [],
        ["addresses"],  # where localhost is ::1 too, and nginx listens on 127.0.0.1 only
    )


def test_a_good_way_has_no_finding(lab: Lab, ask: Ask) -> None:
    for asked in [ask("--url", stream(port), config=lab.config) for port in (lab.app, lab.ports["good"])]:
        checkup = asked.result()
        assert (checkup.code, checkup.faults()) == (0, [])
        assert {"buffering", "compression", "silence", "resuming", "settings", "worker class"} <= {
            each.name for each in checkup.findings
        }


@pytest.mark.parametrize(
    ("name", "found", "says"),
    [("ends-compressed", "compression", "gzip"), ("ends-not-resumed", "resuming", "not resumed")],
)
def test_a_stream_that_ends_early_hides_no_other_fault(
    lab: Lab, ask: Ask, name: str, found: str, says: str
) -> None:
    checkup = ask("--url", stream(lab.proxy, f"{name}/stream?channels=a"), config=lab.config).result()
    assert (checkup.code, list(checkup.of_level("broken"))) == (1, [found])
    assert says in checkup.of_level("broken")[found]


def test_a_broker_that_is_down_is_one_finding_also_with_a_url(lab: Lab, ask: Ask) -> None:
    config = {"SSE_PUSH_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    port = lab.gunicorn(env=config)
    [fault] = ask("--url", stream(port), config={**lab.config, **config}).result().faults()
    assert f"{fault.level} {fault.name}" == WEB["broker-down"].found
    assert WEB["broker-down"].remedy in fault.advice


def test_without_a_url_and_files_the_doctor_says_that_it_does_not_know_gunicorn(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    found = {each.name: each for each in examine(config=lab.config).findings}
    assert "worker class" not in found
    assert found["gunicorn"].level == "warning"
    assert "--gunicorn '-k gevent -w 4'" in found["gunicorn"].advice


def test_strangers_learn_nothing_about_the_server(lab: Lab) -> None:
    with socket.create_connection(("127.0.0.1", lab.app), 30) as client:
        client.sendall(b"GET /stream/doctor HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 403 " in head.splitlines()[0]
    assert set(json.loads(body)) == {"code", "name", "message", "details", "retry", "timestamp"}
