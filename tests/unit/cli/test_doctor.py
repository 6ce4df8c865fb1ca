"""The checks of the doctor that are pure: from facts to findings."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push.brokers.redis import rights
from flask_sse_push.cli.doctor import live, proxies, redis_facts, server, settings
from flask_sse_push.cli.doctor.finding import BROKEN, OK, WARNING
from flask_sse_push.config import Settings
from tests.support.doctor_cases import APP

SETUP = server.Setup(
    worker_class="gevent", workers=2, threads=1, connections=1000, http2=False,
    graceful_timeout=30, preload=False, tls=False, fast_parser=True, patched=True, late=[], missing="",
    files=65536,
)  # fmt: skip

REDIS = {
    "redis_version": "7.0.15", "role": "master", "maxmemory": "0", "maxmemory-policy": "noeviction",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "appendonly": "yes", "save": "", "maxclients": "10000", "connected_clients": 5, "time": 1000.0,
    "used_memory": 1,
}  # fmt: skip


def levels(findings: Any) -> dict[str, str]:
    """Returns the levels that are not ok, by name. Checks that each finding has its texts."""
    all_findings = list(findings)
    for finding in all_findings:
        assert finding.what
        assert bool(finding.why and finding.advice) is (finding.level != OK)
    return {finding.name: finding.level for finding in all_findings if finding.level != OK}


def test_good_facts_have_no_findings() -> None:
    assert levels(server.examine_server(SETUP, Settings(broker_url="redis://x"))) == {}
    assert levels(redis_facts.check_facts(REDIS, 1000.5)) == {}
    assert levels(settings.examine_settings(Settings(), {"SECRET_KEY": "x"})) == {}


@pytest.mark.parametrize(("fast", "said"), [(True, "gunicorn_h1c"), (False, "flask-sse-push[fast]")])
def test_the_doctor_says_which_parser_gunicorn_uses(fast: bool, said: str) -> None:
    found = list(server.examine_server(SETUP._replace(fast_parser=fast), Settings(broker_url="redis://x")))
    assert [said in each.what for each in found if each.name == "HTTP parser"] == [True]


def test_the_doctor_reads_gunicorns_parser_from_its_options() -> None:
    chosen = server.load_gunicorn("-k gevent --http-parser fast")
    refused = server.load_gunicorn("-k gevent --http-parser python")
    assert isinstance(chosen, server.Setup)
    assert isinstance(refused, server.Setup)
    assert (chosen.fast_parser, refused.fast_parser) == (find_spec("gunicorn_h1c") is not None, False)


@pytest.mark.parametrize(
    ("change", "wanted", "found"),
    [
        ({"worker_class": "sync"}, {}, {"worker class": BROKEN}),
        (
            {"worker_class": "gthread", "threads": 1},
            {"max_streams": 1},
            {"worker class": BROKEN},
        ),
        ({"http2": True}, {}, {"HTTP/2": BROKEN}),
        ({"missing": "No module named 'nowhere'", "preload": True}, {}, {"worker class": BROKEN}),
        ({"tls": True}, {}, {"taking over sockets": WARNING}),
        (
            {"tls": True, "connections": 100},
            {},
            {"taking over sockets": WARNING, "worker_connections": WARNING},
        ),
        ({"connections": 10}, {}, {"worker_connections": WARNING}),
        ({"files": 1024}, {}, {"open files": WARNING}),
        ({"files": 256}, {}, {"open files": BROKEN}),
        ({"preload": True, "patched": False}, {}, {"monkey patching": BROKEN}),
        ({"late": ["redis"]}, {}, {"monkey patching": BROKEN}),
        ({"graceful_timeout": 10}, {"drain": 9.0}, {"graceful timeout": BROKEN}),
        ({}, {"transport": "generator"}, {"taking over sockets": WARNING}),
    ],
)
def test_gunicorn(change: dict[str, Any], wanted: dict[str, Any], found: dict[str, str]) -> None:
    result = levels(
        server.examine_server(SETUP._replace(**change), Settings(broker_url="redis://x", **wanted))
    )
    assert result == found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"redis_version": "5.0.3"}, {"version": WARNING}),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.1"}, {}),
        ({"role": "slave"}, {"role": WARNING}),
        ({"maxmemory": "1000", "maxmemory-policy": "volatile-ttl"}, {"eviction": BROKEN}),
        ({"maxmemory": "1000", "used_memory": 950}, {"eviction": WARNING}),
        ({"maxmemory": "1000"}, {}),
        ({"client-output-buffer-limit": "pubsub 0 0 0"}, {}),
        ({"client-output-buffer-limit": "pubsub 0 2000000 1"}, {"pub/sub buffer": WARNING}),
        ({"client-output-buffer-limit": "pubsub 65536 0 1"}, {"pub/sub buffer": BROKEN}),
        ({"appendonly": "no"}, {"persistence": WARNING}),
        ({"connected_clients": 9999}, {"clients": BROKEN}),
        ({"time": 990.0}, {"clock": WARNING}),
    ],
)
def test_redis(change: dict[str, Any], found: dict[str, str]) -> None:
    assert levels(redis_facts.check_facts({**REDIS, **change}, 1000.0)) == found


def test_facts_that_redis_does_not_report_are_skipped() -> None:
    assert levels(redis_facts.check_facts({"redis_version": "7.0.0"}, 1000.0)) == {}


@pytest.mark.parametrize(
    ("wanted", "config", "found"),
    [
        ({"heartbeat": 90.0}, {}, {"heartbeat": WARNING}),
        ({"public_channels": ("*",)}, {}, {"public channels": WARNING}),
        ({}, {"SECRET_KEY": None}, {"secret key": WARNING}),
        ({"cors_origins": ("https://a.example",)}, {}, {"cookies of foreign pages": WARNING}),
        (
            {"cors_origins": ("https://a.example",)},
            {"SESSION_COOKIE_SAMESITE": "None"},
            {"cookies of foreign pages": BROKEN},
        ),
        (
            {"cors_origins": ("https://a.example",)},
            {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
            {},
        ),
    ],
)
def test_settings(wanted: dict[str, Any], config: dict[str, Any], found: dict[str, str]) -> None:
    assert levels(settings.examine_settings(Settings(**wanted), {"SECRET_KEY": "x", **config})) == found


@pytest.mark.parametrize(
    "said", [{"workers": "many", "connections": None, "files": [1]}, {"worker_class": {}, "threads": 2.5}, {}]
)
def test_what_another_server_says_about_gunicorn_is_passed_over(
    said: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    assert server.find_setup("", live.Live({"settings": {}, "gunicorn": said})) == server.UNKNOWN


def test_what_the_running_app_says_counts_more_than_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {"worker_class": "gevent", "workers": 3}
    found = server.find_setup("-k sync -w 1", live.Live({"settings": {}, "gunicorn": said}))
    assert isinstance(found, server.Setup)
    assert (found.worker_class, found.workers) == ("gevent", 3)


def test_gunicorns_own_defaults_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    found = server.load_gunicorn("-w 3")
    assert isinstance(found, server.Setup), found
    assert (found.worker_class, found.workers, found.patched) == ("sync", 3, False)
    assert isinstance(server.load_gunicorn("--no-such-option"), str)


def test_gevent_that_is_not_installed_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "gevent.py").write_text("raise ImportError('no gevent here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [fault] = server.examine_server(server.load_gunicorn("-k gevent"), Settings())
    assert f"{fault.level} {fault.name}" == APP["no-gevent"].found
    assert APP["no-gevent"].remedy in fault.advice


def test_a_worker_class_may_lie_below_pythonpath(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "ours.py").write_text("class Worker: pass")
    monkeypatch.chdir("/")
    found = server.load_gunicorn(f"-k ours.Worker --pythonpath {tmp_path}")
    assert isinstance(found, server.Setup), found
    assert (found.worker_class, found.missing) == ("ours.Worker", "")


def test_a_server_that_nobody_names_is_no_finding_if_the_running_app_was_asked() -> None:
    assert list(server.examine_server(None, Settings(), was_asked=True)) == []


@pytest.mark.parametrize(
    "value", ["", "many", "\x1b[2J", None, "9" * 400, "1.5.x", "pubsub", "pubsub x y", [], {}]
)
def test_facts_that_are_no_facts_are_passed_over(value: Any) -> None:
    for name in REDIS:
        assert {finding.level for finding in redis_facts.check_facts({**REDIS, name: value}, 1000.0)} >= {OK}


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"server": "nginx/1.22.1"}, "nginx"),
        ({"server": "openresty"}, "nginx"),
        ({"server": "cloudflare", "cf-ray": "8a-FRA"}, "Cloudflare"),
        ({"server": "nginx", "cf-ray": "8a-FRA"}, "Cloudflare"),
        ({"via": "2.0 caddy"}, "Caddy"),
        ({"via": "1.1 abc.cloudfront.net (CloudFront)"}, "CloudFront"),
        ({"server": "gunicorn"}, "a proxy that does not name itself"),
        ({}, "a proxy that does not name itself"),
    ],
)
def test_a_proxy_is_known_by_its_headers(headers: dict[str, str], name: str) -> None:
    assert proxies.find_proxy(headers).name == name


def test_each_command_of_the_scripts_is_among_the_rights() -> None:
    folder = Path(rights.__file__).parent
    scripts = "".join(path.read_text() for path in (folder / "lua").glob("*.lua"))
    used = set(re.findall(r"(?:call|pcall|typed|write)\('([A-Z]+)'", scripts))
    assert used
    assert used <= {*rights.COMMANDS, *rights.PLAIN_NAMES}
