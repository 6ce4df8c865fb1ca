"""docs/quickstart.md, word by word: in an empty folder, with the package's wheel, and no other server."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from flask_sse_push.brokers.embedded.server import EmbeddedServer
from tests.support.deadline import eventually
from tests.support.pages import Command, block, commands
from tests.support.processes import ROOT, free_port
from tests.support.stream import Stream

PAGE = "docs/quickstart.md"
INSTALL = 'pip install "flask-sse-push[embedded]"'
NEW_FOLDER = ["mkdir hello", "cd hello", "python3 -m venv .venv", ". .venv/bin/activate"]


class Reader(NamedTuple):
    """Someone who follows the page: the folder `hello`, and what the terminal has set."""

    folder: Path
    environ: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, command: str) -> str:
        """Runs a command of the page in a shell. Returns its output."""
        command = command.replace("http://127.0.0.1:8000", self.url)
        result = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert (result.returncode, result.stderr) == (0, ""), command
        return result.stdout

    @contextlib.contextmanager
    def running(self, command: Command) -> Iterator[subprocess.Popen[bytes]]:
        """Runs the page's gunicorn command as a terminal does, and presses Ctrl-C at the end of the block."""
        with (self.folder / "terminal").open("wb") as terminal:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.text}"],
                cwd=self.folder,
                env=self.environ,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        try:
            listening = f"Listening at: {self.url} ({process.pid})"
            eventually(lambda: listening in (self.folder / "terminal").read_text(), 20)
            yield process
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the package as its wheel has it."""
    source, folder = tmp_path / "source", tmp_path / "packages"
    source.mkdir()
    shutil.copytree(ROOT / "flask_sse_push", source / "flask_sse_push")
    for name in (
        "pytest_flask_sse_push.py",
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
    ):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(folder)]
    subprocess.run([*pip, *options, str(source)], check=True, timeout=240)
    return folder


@pytest.fixture
def reader(tmp_path: Path, packages: Path) -> Iterator[Reader]:
    (folder := tmp_path / "hello").mkdir()
    without = {
        key: value for key, value in os.environ.items() if not key.endswith(("REDIS_URL", "BROKER_URL"))
    }
    port = free_port()
    environ = {
        **without,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
    }
    yield Reader(folder, environ, port)
    EmbeddedServer(root=str(folder)).stop()


def shape(text: str) -> str:
    """Returns an output with N for each number, C for each cursor and I for each id of a connection."""
    text = re.sub(r"\b[0-9a-z]{8}-[0-9a-z]{10}\b", "C", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "I", text)
    return re.sub(r"[0-9]+(\.[0-9]+)?", "N", text).replace("seconds", "second").strip()


def without_comments(stream: str) -> str:
    """Returns a raw stream without its comments. A worker that knows all events sends none."""
    return re.sub("^:.*\n", "", stream, flags=re.MULTILINE)


def test_the_quick_start_works_word_by_word(reader: Reader) -> None:
    steps = iter(commands(PAGE))
    assert [next(steps).text for _ in range(5)] == [*NEW_FOLDER, INSTALL]  # the fixtures have done this
    (reader.folder / "app.py").write_text(block(PAGE, "python", "register_blueprint(sse"))
    assert reader.run("python -c 'import flask_sse_push; print(flask_sse_push.__file__)'").startswith(
        reader.environ["PYTHONPATH"]
    )

    with reader.running(next(steps)) as process, Stream(f"{reader.url}/stream") as window:
        assert "PushClient" in httpx.get(reader.url, trust_env=False).text
        window.next_of("sse.open")
        httpx.post(f"{reader.url}/hello", content="Hello!", trust_env=False)
        assert window.next_of("greeting").json() == {"message": "Hello!"}
        assert next(steps).text == NEW_FOLDER[-1]  # the second terminal
        shell = [next(steps), next(steps)]
        assert [shape(reader.run(step.text)) for step in shell] == [shape(step.output[0]) for step in shell]
        event = window.next_of("greeting")
        assert event.json() == {"message": "Hello from the shell"}
        process.send_signal(signal.SIGHUP)  # gunicorn's reload keeps the events too
        assert list(window)[-1].type == "sse.close"
        with Stream(f"{reader.url}/stream", cursor=event.id) as window:
            assert window.next_of("sse.open").json()["resumed"]

    away = next(steps)
    assert shape(reader.run(away.text)) == shape(away.output[0])
    with reader.running(next(steps)):
        with Stream(f"{reader.url}/stream", cursor=event.id) as window:
            assert window.next_of("greeting").json() == {"message": "While you were away"}
        raw = next(steps)
        seen = reader.run(f"{raw.text} --silent | head -{len(raw.output)}").replace("\t", "")
        printed = "\n".join(raw.output)
        assert shape(without_comments(seen)) == shape(without_comments(printed))

    stop = next(steps)
    assert reader.run(stop.text).rstrip() == stop.output[0].replace("/srv/hello", str(reader.folder))
    assert next(steps, None) is None
