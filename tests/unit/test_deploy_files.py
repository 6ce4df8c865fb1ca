"""The numbers in deploy/ fit each other, gunicorn's numbers and the package's defaults."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flask_sse_push.config import Settings
from flask_sse_push.hub.drain import LONGEST_WAIT
from flask_sse_push.runs.manager import GRACE
from tests.support.processes import ROOT

DEPLOY = ROOT / "deploy"
DEFAULTS = Settings()


def text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def constants(path: Path) -> dict[str, Any]:
    """Returns the literals that a gunicorn.conf.py sets, without running it: that would patch the standard
    library."""
    found = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            (target,) = node.targets
            assert isinstance(target, ast.Name)
            found[target.id] = node.value.value
    return found


def directive(name: str) -> str:
    """Returns the value of a directive of nginx, which must occur once."""
    (value,) = re.findall(rf"^ *{name} (.+);$", text("nginx.conf.template"), re.MULTILINE)
    return str(value)


def seconds(value: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", value).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]


GUNICORN = constants(DEPLOY / "gunicorn.conf.py")
GRACEFUL: float = GUNICORN["graceful_timeout"]
COMPOSE: dict[str, Any] = yaml.safe_load(text("compose.yaml"))["services"]
KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all(text("kubernetes.yaml"))}
POD: dict[str, Any] = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
UNIT = configparser.ConfigParser(interpolation=None, strict=True)
UNIT.optionxform = str  # type: ignore[assignment,method-assign]
UNIT.read_string(text("app.service"))
SERVICE = UNIT["Service"]


def test_production_and_demo_configure_gunicorn_alike() -> None:
    demo = constants(ROOT / "gunicorn.conf.py")
    assert demo == {key: GUNICORN[key] for key in demo}
    assert GUNICORN["worker_class"] == "gevent"


def test_gunicorn_waits_for_streams_and_runs() -> None:
    assert GRACEFUL > LONGEST_WAIT > GRACE > DEFAULTS.drain


def test_every_supervisor_waits_longer_than_gunicorn_when_it_stops_it() -> None:
    assert float(SERVICE["TimeoutStopSec"]) >= GRACEFUL + 5
    assert SERVICE["KillMode"] == "mixed"
    assert seconds(COMPOSE["app"]["stop_grace_period"]) >= GRACEFUL + 5
    (_, before) = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["terminationGracePeriodSeconds"] >= float(before) + GRACEFUL + 5
    probe = CONTAINER["readinessProbe"]
    assert probe["periodSeconds"] <= float(before), "who stops must be seen as not ready before it does"


def test_each_worker_may_open_a_file_for_each_of_its_streams() -> None:
    needed = DEFAULTS.max_streams + GUNICORN["worker_connections"]
    assert int(SERVICE["LimitNOFILE"]) > needed
    assert COMPOSE["app"]["ulimits"]["nofile"] > needed


def test_nginx_has_two_connections_for_each_stream_and_a_file_for_each_connection() -> None:
    connections = int(directive("worker_connections"))
    assert connections >= DEFAULTS.max_streams
    assert int(directive("worker_rlimit_nofile")) > connections
    assert COMPOSE["nginx"]["ulimits"]["nofile"] >= int(directive("worker_rlimit_nofile"))


def test_nginx_waits_longer_than_the_time_between_heartbeats() -> None:
    assert seconds(directive("proxy_read_timeout")) == 5 * DEFAULTS.heartbeat
    assert f"{directive('proxy_read_timeout').removesuffix('s')} seconds of silence" in text(
        "kubernetes.yaml"
    )
    assert seconds(directive("send_timeout")) > DEFAULTS.write_timeout
    assert seconds(directive("worker_shutdown_timeout")) >= GRACEFUL


def test_all_files_use_the_same_path_port_and_user() -> None:
    assert f"location ~ ^{DEFAULTS.url_prefix}/?$ {{" in text("nginx.conf.template")
    assert f'"{DEFAULTS.url_prefix}/health"' in text("ready.py")
    assert f'url_prefix="{DEFAULTS.url_prefix}"' in text("app.py")
    port = CONTAINER["ports"][0]["containerPort"]
    assert COMPOSE["nginx"]["environment"]["UPSTREAM"] == f"app:{port}"
    assert f"BIND=0.0.0.0:{port} " in text("Dockerfile")
    assert f"EXPOSE {port}\n" in text("Dockerfile")
    assert f"USER {POD['securityContext']['runAsUser']}\n" in text("Dockerfile")


def test_a_health_check_may_run_longer_than_its_own_timeout() -> None:
    (patience,) = re.findall(r"timeout=(\d+)", text("ready.py"))
    assert CONTAINER["readinessProbe"]["exec"]["command"] == ["python", "-I", "ready.py"]
    assert CONTAINER["readinessProbe"]["timeoutSeconds"] > int(patience)
    assert re.search(
        rf'--timeout={int(patience) + 1}s .* CMD \["python", "-I", "ready.py"\]', text("Dockerfile")
    )


def test_an_unavailable_redis_does_not_restart_the_app() -> None:
    assert "exec" not in CONTAINER["livenessProbe"]
    assert "httpGet" not in CONTAINER["livenessProbe"]


def test_valkey_keeps_its_data() -> None:
    command = COMPOSE["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {"--appendonly": "yes", "--maxmemory-policy": "noeviction"}
    assert COMPOSE["app"]["environment"]["SSE_PUSH_BROKER_URL"] == "redis://valkey:6379/0"


def test_the_image_contains_the_files_that_it_runs() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", text("Dockerfile"), re.MULTILINE):
        for name in line.split():
            assert (DEPLOY / name).is_file()


def test_the_documentation_states_these_numbers() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    table = page.partition("## Numbers that depend on each other")[2].partition("##")[0]
    shown = re.findall(r"^\| .+? \| ([\d.]+)(?: s)? \|", table, re.MULTILINE)
    assert [float(number) for number in shown] == [
        DEFAULTS.drain,
        GRACEFUL,
        float(SERVICE["TimeoutStopSec"]),
        float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1]),
        POD["terminationGracePeriodSeconds"],
        DEFAULTS.heartbeat,
        seconds(directive("proxy_read_timeout")),
        seconds(directive("worker_shutdown_timeout")),
        float(SERVICE["LimitNOFILE"]),
        float(directive("worker_connections")),
        GUNICORN["worker_connections"],
    ]
    assert COMPOSE["app"]["stop_grace_period"] == f"{SERVICE['TimeoutStopSec']}s"
    assert COMPOSE["app"]["ulimits"]["nofile"] == int(SERVICE["LimitNOFILE"])


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    command = tmp_path / "bin" / "gunicorn"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = tmp_path / "app.service"
    unit.write_text(text("app.service").replace("/srv/app/.venv", str(tmp_path)))
    result = subprocess.run(
        [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    # About wrong keys, systemd-analyze only prints a warning.
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
