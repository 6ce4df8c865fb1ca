"""docs/deployment.md makes a server out of a bare Debian: all its commands, in order, with real programs."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.testing.events import Event, Parser
from tests.support.deadline import eventually
from tests.support.debian import NAME, Debian, Service
from tests.support.processes import ROOT, accepts, free_port, need

PAGE = (ROOT / "docs" / "deployment.md").read_text("utf-8")
UPDATE = "### Update without loss"


def blocks(part: str) -> list[str]:
    """Returns the blocks of commands in a part of the page, in their order."""
    return re.findall(r"^```bash\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


SECTION = PAGE[PAGE.index("## On one machine") : PAGE.index("### A certificate for a trial")]
INSTALL, UPGRADE = SECTION.split(UPDATE)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """The machine, after all commands up to the update."""
    need("redis-server")
    machine = Debian(tmp_path_factory.mktemp("root"), free_port())
    try:
        (first, *others) = blocks(INSTALL)
        assert f"SERVER_NAME={NAME} UPSTREAM=127.0.0.1:8000" in first
        for number, block in enumerate(others):
            said = machine.run(block, ROOT / "deploy")
            if "nginx -t" in block:
                eventually(lambda: accepts(machine.tls), 20)
            if number == len(others) - 1:
                assert json.loads(said.splitlines()[0])["scheme"] == "https"
                assert "event: sse.open" in said
        yield machine
    finally:
        machine.stop()


def events(response: httpx.Response) -> Iterator[Event]:
    parser = Parser()
    for chunk in response.iter_raw():
        yield from parser.feed(chunk)


def test_an_update_loses_no_event(debian: Debian) -> None:
    env = dict(line.split("=", 1) for line in (debian.root / "etc/app.env").read_text().splitlines())
    publisher = MessageAnnouncer.from_url(env["SSE_PUSH_BROKER_URL"])
    trust = ssl.create_default_context(cafile=str(debian.root / "etc/nginx/tls/fullchain.pem"))
    url = f"https://127.0.0.1:{debian.tls}/stream?channels=news"
    trust.check_hostname = False
    with httpx.Client(verify=trust, trust_env=False, timeout=60, headers={"Host": NAME}) as client:
        with client.stream("GET", url) as response:
            arriving = events(response)
            assert next(arriving).type == "sse.open"
            cursor = publisher.publish("before", channel="news")
            assert next(arriving).data == "before"
            (block,) = blocks(UPGRADE)
            debian.run(block, ROOT / "deploy")
            *_, last = arriving
            assert last.type == "sse.close"
        publisher.publish("during the update", channel="news")
        with client.stream("GET", url, headers={"Last-Event-ID": cursor}) as response:
            arriving = events(response)
            assert next(arriving).json()["resumed"] is True
            assert next(arriving).data == "during the update"
    publisher.close()


def test_the_packages_and_settings_exist(debian: Debian) -> None:
    done = debian.done()
    (line,) = [line for line in done if line.startswith("apt-get install")]
    packages = [word for word in line.split()[2:] if word[0] != "-"]
    installed_by = {"certbot": "certbot", "envsubst": "gettext-base", "nginx": "nginx", "ufw": "ufw"}
    used = {line.split()[0] for line in done} & set(installed_by)
    assert {installed_by[program] for program in used} <= set(packages)
    if shutil.which("apt-cache"):
        known = subprocess.run(["apt-cache", "policy", *packages], capture_output=True, text=True, timeout=30)
        unknown = {package for package in packages if f"{package}:\n" not in known.stdout}
        assert not known.stdout or not unknown
    for setting in (debian.root / "etc/sysctl.d/60-streams.conf").read_text().splitlines():
        key = setting.partition(" = ")[0]
        assert (Path("/proc/sys") / key.replace(".", "/")).exists(), key


def test_secrets_are_for_root_only_and_the_firewall_keeps_ssh(debian: Debian) -> None:
    assert (debian.root / "etc/app.env").stat().st_mode & 0o777 == 0o600
    firewall = [line for line in debian.done() if line.startswith("ufw")]
    assert firewall == ["ufw allow 22/tcp", "ufw allow 80,443/tcp", "ufw --force enable"]


def test_the_unit_runs_as_the_user_that_the_page_makes(debian: Debian) -> None:
    (line,) = [line for line in debian.done() if line.startswith("useradd")]
    assert line.split()[-1] == Service(debian.root, "app").unit()["User"]
    assert int(Service(debian.root, "app").unit()["LimitNOFILE"]) > 20_000


def test_certbot_reaches_its_folder_and_other_requests_go_to_https(debian: Debian) -> None:
    plain = f"http://127.0.0.1:{debian.plain}"
    with httpx.Client(trust_env=False, headers={"Host": NAME}, timeout=30) as client:
        # nginx's workers run as another user, who may not enter the folders of the test.
        assert client.get(f"{plain}/.well-known/acme-challenge/proof").status_code in (403, 404)
        answer = client.get(f"{plain}/stream")
    assert (answer.status_code, answer.headers["location"]) == (301, f"https://{NAME}/stream")
    log = (debian.root / "var/log/nginx/error.log").read_text()
    assert f"{debian.root}/var/www/html/.well-known/acme-challenge/proof" in log
