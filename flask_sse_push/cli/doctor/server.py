"""gunicorn as it is set up: asked by loading its configuration in a process of its own, as gunicorn does."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...config import Settings
from .finding import Finding, broken, graded, ok, warning

#: Seconds that the configuration may take to load.
PATIENCE = 30
#: Seconds that a worker needs to stop beside the time over which its streams are sent away.
REST = 2.0
#: Open files below which a worker has no room for streams worth the name, and what 1,000 streams need.
TOO_FEW_FILES, FEW_FILES = 300, 1_100

# Run apart, so that patching meets what it meets under gunicorn, and nothing of ours was imported before.
_PROBE = """
import json, resource, sys
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
hook = cfg.post_worker_init
print(json.dumps({
    "worker_class": cfg.worker_class_str if isinstance(cfg.worker_class_str, str) else "",
    "workers": cfg.workers, "threads": cfg.threads, "connections": cfg.worker_connections,
    "graceful_timeout": cfg.graceful_timeout, "preload": bool(cfg.preload_app), "tls": bool(cfg.is_ssl),
    "hooked": not getattr(hook, "__module__", "gunicorn").startswith("gunicorn.config"),
    "patched": bool(monkey and monkey.is_module_patched("socket")), "late": late,
    "files": 10**9 if soft == resource.RLIM_INFINITY else soft,
}))
"""


class Setup(NamedTuple):
    """What gunicorn would run with."""

    worker_class: str
    workers: int
    threads: int
    connections: int
    graceful_timeout: float
    preload: bool
    tls: bool
    hooked: bool  # whether the configuration has a post_worker_init
    patched: bool  # whether the configuration itself patches
    late: Sequence[str]  # what it had imported before
    files: int  # the limit of open files

    @property
    def is_gevent(self) -> bool:
        return self.worker_class == "gevent" or self.worker_class.endswith("GeventWorker")


def load(options: str) -> Setup | str:
    """The set-up by gunicorn's command line options, its configuration file and its environment.

    Blocks until they are loaded. Returns why, when they cannot be.
    """
    arguments = [*shlex.split(options), "doctor:app"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"it did not load within {PATIENCE} seconds"
    try:
        return Setup(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]


def examine_server(found: Setup | str, settings: Settings) -> Iterator[Finding]:
    """Findings on gunicorn. Pure."""
    if isinstance(found, str):
        yield broken(
            "gunicorn",
            f"its configuration cannot be loaded: {found}",
            "gunicorn would not start",
            "mend gunicorn.conf.py, or give the options you start gunicorn with by --gunicorn",
        )
        return
    yield _workers(found)
    yield _worker_class(found)
    yield _patching(found)
    yield from _memory(found, settings)
    yield _transport(found, settings)
    yield _places(found, settings)
    yield _files(found, settings)
    yield _graceful(found, settings)
    yield from _hook(found)


def _workers(found: Setup) -> Finding:
    return ok("gunicorn", f"{found.workers} workers of class {found.worker_class}")


def _worker_class(found: Setup) -> Finding:
    name = "worker class"
    if found.is_gevent:
        return ok(name, found.worker_class)
    if found.worker_class in ("gthread", "gevent_pywsgi"):
        return warning(
            name,
            f"gunicorn's worker class is {found.worker_class}",
            f"each stream keeps one of {found.threads} threads, so no page is served once all have one"
            if found.worker_class == "gthread"
            else "sockets cannot be taken over there: each stream keeps a greenlet",
            "run gunicorn with -k gevent",
        )
    return broken(
        name,
        f"gunicorn's worker class is {found.worker_class}",
        "a worker of this class is busy with its first stream for ever, or does not stream at all",
        "run gunicorn with -k gevent",
    )


def _patching(found: Setup) -> Finding:
    name = "monkey patching"
    if found.late:
        return broken(
            name,
            f"gunicorn's configuration imports {', '.join(found.late)} before it calls monkey.patch_all()",
            "what was imported before keeps blocking sockets and locks: one of them holds up all streams",
            "put `from gevent import monkey; monkey.patch_all()` into the first lines of gunicorn.conf.py",
        )
    if found.preload and found.is_gevent and not found.patched:
        return broken(
            name,
            "gunicorn preloads the app (preload_app), and nothing has patched before",
            "what the app imports keeps blocking sockets and locks: one of them holds up all streams",
            "put `from gevent import monkey; monkey.patch_all()` into the first lines of gunicorn.conf.py",
        )
    return ok(name, "by the configuration, first" if found.patched else "by the worker, before the app")


def _memory(found: Setup, settings: Settings) -> Iterator[Finding]:
    if settings.broker_url.startswith("memory:") and found.workers > 1:
        yield broken(
            "broker",
            f"SSE_PUSH_BROKER_URL is memory://, and gunicorn runs {found.workers} workers",
            "each worker knows its own events only: streams miss what another worker publishes",
            "set SSE_PUSH_BROKER_URL to a Redis URL, or run one worker",
        )


def _transport(found: Setup, settings: Settings) -> Finding:
    name, why_not = "taking over sockets", ""
    if not found.is_gevent:
        why_not = f"gunicorn's worker class is {found.worker_class}, not gevent"
    elif found.tls:
        why_not = "gunicorn ends TLS itself; a proxy could do that"
    elif settings.transport == "generator":
        why_not = "SSE_PUSH_TRANSPORT is generator"
    elif not _can_hijack():
        why_not = "this version of gevent has other sockets than expected"
    if not why_not:
        return ok(name, "works: a stream costs its connection, no greenlet and no place for a request")
    if settings.transport == "hijack":
        return broken(
            name,
            f"SSE_PUSH_TRANSPORT is hijack, but: {why_not}",
            "every stream is answered with an error",
            "set SSE_PUSH_TRANSPORT to auto, or remove the obstacle",
        )
    return warning(
        name,
        f"does not work here: {why_not}",
        "each stream keeps a greenlet or thread, about 20 kB, and costs about five times as much CPU",
        "remove the obstacle if you have thousands of streams",
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
            f"a worker has {places} places for requests, and here each stream takes one",
            f"a worker holds {int(places * 0.9)} streams; more are refused with 503",
            "raise worker_connections (gthread: threads), or let sockets be taken over",
        )
    if places < 50:
        return warning(
            name,
            f"a worker has {places} places for requests",
            "pages, and streams that are about to begin, wait for a place when many come at once",
            "leave worker_connections at gunicorn's 1,000 or raise it",
        )
    return ok(name, f"{places} a worker")


def _files(found: Setup, settings: Settings) -> Finding:
    name = "open files"
    advice = "raise it for gunicorn: LimitNOFILE=65536 (systemd), `ulimit -n 65536`, --ulimit (Docker)"
    room = max(0, found.files - 100)
    why = f"a stream is an open file: a worker has room for {room}, and refuses the rest with 503"
    few = found.files < FEW_FILES and room < settings.max_streams
    what = f"a worker may open {found.files}"
    return graded(name, what, why, advice, is_broken=found.files < TOO_FEW_FILES, is_poor=few)


def _graceful(found: Setup, settings: Settings) -> Finding:
    name, needed = "graceful timeout", settings.drain + REST
    if found.graceful_timeout >= needed:
        return ok(name, f"{found.graceful_timeout:g} seconds, of which streams need {settings.drain:g}")
    return broken(
        name,
        f"graceful_timeout is {found.graceful_timeout:g} seconds, SSE_PUSH_DRAIN {settings.drain:g}",
        "gunicorn kills the worker while its streams are still being sent away: they are cut in the middle",
        f"set graceful_timeout to {needed:g} or more, or SSE_PUSH_DRAIN to less",
    )


def _hook(found: Setup) -> Iterator[Finding]:
    if found.worker_class == "gthread" and not found.hooked:
        yield warning(
            "drain hook",
            "gunicorn's configuration has no post_worker_init",
            "a gthread worker ends at Ctrl-C without a word to its streams",
            "put `from flask_sse_push.transports.server import watch as post_worker_init` into "
            "gunicorn.conf.py",
        )
