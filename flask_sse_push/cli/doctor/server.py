"""Checks gunicorn's configuration. A separate process loads the configuration as gunicorn does."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...brokers.url import serves_one_process
from ...config import SHARE_BROKER, Settings
from ...transports import cost
from .finding import Finding, broken, graded, ok, warning
from .live import Live

#: At most how many seconds the configuration may take to load.
LOAD_TIMEOUT = 30
#: How many seconds a worker needs to stop, besides the time in which it closes its streams.
STOP_TIME = 2.0
#: Limits of open files: below the first number, a worker can have hardly any streams; below the second, it
#: cannot have 1,000 streams.
TOO_FEW_FILES, FEW_FILES = 300, 1_100

# This program runs in a separate process, because the doctor's own process has already imported modules that
# gunicorn would import only after monkey patching.
_PROBE = """
import importlib.util, json, resource, signal, sys
signal.alarm(int(sys.argv.pop(1)))  # ends this process even if the doctor has ended
late = []
def watch():
    try:
        from gevent import monkey
    except ImportError:
        return None
    patch = monkey.patch_all
    def patch_all(*args, **options):
        if not monkey.is_module_patched("socket"):
            names = ("redis", "valkey", "requests", "urllib3", "flask_sse_push")
            late.extend(name for name in names if name in sys.modules)
        return patch(*args, **options)
    monkey.patch_all = patch_all
    return monkey
monkey = watch()
from gunicorn.app.wsgiapp import WSGIApplication
cfg = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]").cfg
soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
is_patched, missing = bool(monkey and monkey.is_module_patched("socket")), ""
sys.path[:0] = [cfg.chdir, *(cfg.pythonpath or "").split(",")]
try:
    cfg.worker_class  # imports the class, as gunicorn does before it starts workers
except Exception as error:
    missing = str(error).strip(" ]\\n").splitlines()[-1]
print(json.dumps({
    "worker_class": cfg.worker_class_str if isinstance(cfg.worker_class_str, str) else "",
    "workers": cfg.workers, "threads": cfg.threads, "connections": cfg.worker_connections,
    "http2": "h2" in getattr(cfg, "http_protocols", ()) and (cfg.is_ssl or cfg.http2_cleartext != "off"),
    "graceful_timeout": cfg.graceful_timeout, "preload": bool(cfg.preload_app), "tls": bool(cfg.is_ssl),
    "patched": is_patched, "late": late, "missing": missing,
    "fast_parser": getattr(cfg, "http_parser", "python") != "python"
    and importlib.util.find_spec("gunicorn_h1c") is not None,
    "files": 10**9 if soft == resource.RLIM_INFINITY else soft,
}))
"""


class Setup(NamedTuple):
    """The configuration that gunicorn would use."""

    worker_class: str
    workers: int
    threads: int
    connections: int
    http2: bool  # whether gunicorn itself speaks HTTP/2
    graceful_timeout: float
    preload: bool
    tls: bool
    fast_parser: bool  # whether gunicorn parses requests with gunicorn_h1c, which is written in C
    patched: bool  # whether the configuration itself calls monkey.patch_all()
    late: Sequence[str]  # modules that the configuration imports before it calls monkey.patch_all()
    missing: str  # why gunicorn cannot import the worker class; empty if it can
    files: int  # at most how many files a worker may have open

    @property
    def is_gevent(self) -> bool:
        return self.worker_class == "gevent" or self.worker_class.endswith("GeventWorker")


#: Values without faults, for the parts of a configuration that a running worker does not report.
UNKNOWN = Setup(
    worker_class="", workers=1, threads=1, connections=1000, http2=False, graceful_timeout=30,
    preload=False, tls=False, fast_parser=False, patched=False, late=[], missing="", files=10**9,
)  # fmt: skip


def load_gunicorn(options: str) -> Setup | str:
    """Loads the configuration that gunicorn would use with the command line `options`.

    Reads gunicorn's configuration file and environment variables too. Returns the configuration, or a text
    that says why it cannot be loaded. Blocks for at most `LOAD_TIMEOUT` seconds.
    """
    arguments = [str(LOAD_TIMEOUT), *shlex.split(options), "doctor:app"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, timeout=LOAD_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"loading took more than {LOAD_TIMEOUT} seconds"
    try:
        return Setup(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]


def find_setup(options: str, live: Live) -> Setup | str | None:
    """Returns the configuration that gunicorn uses, or a text that says why it cannot be loaded.

    Returns None if neither the running app nor a file or option says how gunicorn is started. What the app
    says counts more than files and options. Blocks for at most `LOAD_TIMEOUT` seconds.

    :param options: the value of `--gunicorn`.
    """
    if live.runs_elsewhere:
        return None
    is_told = options or Path("gunicorn.conf.py").exists() or os.environ.get("GUNICORN_CMD_ARGS")
    found = load_gunicorn(options) if is_told else None
    if live.gunicorn is None:
        return found
    setup = found if isinstance(found, Setup) else UNKNOWN
    known = UNKNOWN._asdict().items()
    # Another server than the app may answer, so only values of the right type count.
    said = {
        name: live.gunicorn[name] for name, value in known if type(live.gunicorn.get(name)) is type(value)
    }
    return setup._replace(**{**said, "missing": ""})


def examine_server(
    found: Setup | str | None, settings: Settings, *, was_asked: bool = False
) -> Iterator[Finding]:
    """Yields findings about gunicorn's configuration. Pure.

    :param found: the result of `find_setup`.
    :param was_asked: whether the doctor has asked the running app. If the app gave no answer, another
        finding says why.
    """
    if found is None:
        if not was_asked:
            yield warning(
                "gunicorn",
                "the doctor does not know how gunicorn is started: there is no gunicorn.conf.py here",
                "gunicorn's default, sync workers, cannot serve streams; the doctor does not know yours",
                "pass the options you start gunicorn with: --gunicorn '-k gevent -w 4'; or pass --url, then "
                "the doctor asks the running app",
            )
        return
    if isinstance(found, str):
        yield broken(
            "gunicorn",
            f"gunicorn's configuration cannot be loaded: {found}",
            "gunicorn would not start",
            "correct gunicorn.conf.py, or pass the options you start gunicorn with as --gunicorn",
        )
        return
    if found.missing:
        yield _not_installed(found)
        return
    yield _workers(found)
    yield _parser(found)
    yield _worker_class(found)
    yield from _http2(found)
    yield _patching(found)
    yield from _memory(found, settings)
    if found.is_gevent or settings.transport == "hijack":
        yield _transport(found, settings)
    if found.is_gevent:
        yield _places(found, settings)
    yield _files(found, settings)
    yield _graceful(found, settings)


def _workers(found: Setup) -> Finding:
    return ok("gunicorn", f"{found.workers} workers of class {found.worker_class}")


def _parser(found: Setup) -> Finding:
    if found.fast_parser:
        return ok("HTTP parser", "gunicorn_h1c, written in C")
    install = "pip install 'flask-sse-push[fast]'"
    return ok("HTTP parser", f"gunicorn's own, in Python; `{install}` brings a faster one")


def _not_installed(found: Setup) -> Finding:
    install = "run `pip install gevent` with the Python that runs gunicorn"
    return broken(
        "worker class",
        f"gunicorn cannot load the worker class {found.worker_class}: {found.missing}",
        "gunicorn does not start",
        install if found.is_gevent else f"correct its name, or {cost.RUN_GEVENT}",
    )


def _worker_class(found: Setup) -> Finding:
    name = "worker class"
    if found.is_gevent:
        return ok(name, found.worker_class)
    what = f"gunicorn's worker class is {found.worker_class}"
    if found.worker_class == "gevent_pywsgi":
        why = "with this class, sockets cannot be taken over: each stream occupies a greenlet"
        return warning(name, what, why, cost.RUN_GEVENT)
    if found.worker_class == "gthread" and found.threads > 1:
        streams = int(found.threads * 0.9)
        what = f"{what}: {found.threads} threads, so at most {streams} streams in each worker"
        return warning(name, what, cost.TAKES_THREAD, cost.RUN_GEVENT)
    more = f", or {cost.MORE_THREADS}" if found.worker_class == "gthread" else ""
    return broken(name, what, f"{cost.BLOCKS}; so streams are refused with 503", cost.RUN_GEVENT + more)


def _http2(found: Setup) -> Iterator[Finding]:
    if found.http2:
        why = f"{cost.HTTP2_BLOCKS}; so streams over HTTP/2 are refused with 505"
        yield broken("HTTP/2", "gunicorn itself speaks HTTP/2", why, cost.HTTP2_ADVICE)


def _patching(found: Setup) -> Finding:
    name = "monkey patching"
    if found.late:
        return broken(
            name,
            f"gunicorn's configuration imports {', '.join(found.late)} before it calls monkey.patch_all()",
            "modules imported too early keep blocking sockets and locks: one blocking call stops all streams",
            "put `from gevent import monkey; monkey.patch_all()` into the first lines of gunicorn.conf.py",
        )
    if found.preload and found.is_gevent and not found.patched:
        return broken(
            name,
            "gunicorn preloads the app (preload_app), and nothing calls monkey.patch_all() before that",
            "modules of the app keep blocking sockets and locks: one blocking call stops all streams",
            "put `from gevent import monkey; monkey.patch_all()` into the first lines of gunicorn.conf.py",
        )
    who = "the configuration patches first" if found.patched else "the worker patches before it loads the app"
    return ok(name, who)


def _memory(found: Setup, settings: Settings) -> Iterator[Finding]:
    if serves_one_process(settings) and found.workers > 1:
        yield broken(
            "broker",
            f"SSE_PUSH_BROKER_URL is memory://, and gunicorn runs {found.workers} workers",
            "each worker has only its own events: streams miss what another worker publishes",
            f"{SHARE_BROKER}; or run one worker",
        )


def _transport(found: Setup, settings: Settings) -> Finding:
    name, why_not = "taking over sockets", ""
    if not found.is_gevent:
        why_not = f"gunicorn's worker class is {found.worker_class}, not gevent"
    elif found.tls:
        why_not = "gunicorn itself does TLS; let a proxy do TLS"
    elif settings.transport == "generator":
        why_not = "SSE_PUSH_TRANSPORT is generator"
    elif not _can_hijack():
        why_not = "with the installed version of gevent, sockets cannot be taken over"
    if not why_not:
        return ok(name, "works: a stream needs no greenlet, and does not count against worker_connections")
    if settings.transport == "hijack":
        return broken(
            name,
            f"SSE_PUSH_TRANSPORT is hijack, but: {why_not}",
            "every stream is answered with an error",
            "set SSE_PUSH_TRANSPORT to auto, or remove the cause",
        )
    return warning(
        name,
        f"does not work here: {why_not}",
        "each stream occupies a greenlet or thread, about 20 kB, and costs about five times as much CPU",
        "remove the cause if you have thousands of streams",
    )


def _can_hijack() -> bool:
    try:
        from ...transports import hijacked_socket
    except ImportError:
        return False
    return hijacked_socket.self_test()


def _places(found: Setup, settings: Settings) -> Finding:
    by_request = not found.is_gevent or found.tls or settings.transport == "generator"
    places = found.threads if found.worker_class == "gthread" else found.connections
    name = "worker_connections"
    if by_request and places * 0.9 < min(settings.max_streams, 500):
        return warning(
            name,
            f"a worker serves at most {places} requests at a time, and each stream counts as a request",
            f"a worker can have {int(places * 0.9)} streams; more are refused with 503",
            "raise worker_connections (gthread: threads), or let sockets be taken over",
        )
    if places < 50:
        return warning(
            name,
            f"a worker serves at most {places} requests at a time",
            "when many requests come at once, pages and new streams must wait",
            "leave worker_connections at gunicorn's 1,000 or raise it",
        )
    return ok(name, f"{places} requests at a time in each worker")


def _files(found: Setup, settings: Settings) -> Finding:
    name = "open files"
    advice = "raise it for gunicorn: LimitNOFILE=65536 (systemd), `ulimit -n 65536`, --ulimit (Docker)"
    room = max(0, found.files - 100)
    why = f"each stream is an open file: a worker can have {room} streams, and refuses more with 503"
    few = found.files < FEW_FILES and room < settings.max_streams
    what = f"a worker may open {found.files} files"
    return graded(name, what, why, advice, is_broken=found.files < TOO_FEW_FILES, is_poor=few)


def _graceful(found: Setup, settings: Settings) -> Finding:
    name, needed = "graceful timeout", settings.drain + STOP_TIME
    if found.graceful_timeout >= needed:
        return ok(name, f"{found.graceful_timeout:g} seconds; streams close within {settings.drain:g}")
    return broken(
        name,
        f"graceful_timeout is {found.graceful_timeout:g} seconds, SSE_PUSH_DRAIN {settings.drain:g}",
        "gunicorn would kill the worker before that, so its streams close faster, and its runs are cut off",
        f"set graceful_timeout to {needed:g} or more, or SSE_PUSH_DRAIN to a smaller number",
    )
