"""How long it takes from a fresh clone to the first live event in a browser, by the README alone.

    make first-event

Clones what is committed here, runs the README's first command in the clone as it stands there, without pip's
cache, opens the address that it prints in Chromium, and waits for an event. Then everything is stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import FLAGS
from tests.support.deadline import eventually
from tests.support.processes import ROOT, free_port, need

#: Seconds that all of it may take.
MOST = 300.0
#: Seconds that Ctrl-C may take.
END = 30.0


def commands(readme: str) -> list[str]:
    """The commands of the README's first console block, without what it says of them."""
    block = re.search(r"^```console\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert block is not None, "the README has no console block"
    return [line[2:].partition("#")[0].strip() for line in block[1].splitlines() if line.startswith("$ ")]


@contextlib.contextmanager
def running(command: str, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command as a shell does, in a process group of its own, until Ctrl-C at the end of the block."""
    env = {key: value for key, value in os.environ.items() if not key.endswith("REDIS_URL")}
    env |= {"PORT": str(free_port()), "PIP_NO_CACHE_DIR": "1", "TMPDIR": str(log.parent)}
    env.pop("VIRTUAL_ENV", None)
    env.pop("MAKEFLAGS", None)  # this may be run by make itself
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
        os.killpg(process.pid, signal.SIGINT)
        process.wait(END)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END)


def living(folder: Path) -> list[int]:
    """Pids of processes that work in the folder, or were given a path in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            if line and (str(folder) in line or os.readlink(process / "cwd").startswith(str(folder))):
                found.append(int(process.name))
    return found


def printed_address(log: Path, process: subprocess.Popen[bytes], left: Callable[[], float]) -> str:
    """The address that the demo prints when it is ready."""

    def look() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"Open (http://\S+)", log.read_text())

    found = eventually(look, left(), every=0.1)
    assert found is not None
    return found[1]


def wait_for_event(address: str, left: Callable[[], float]) -> None:
    """Opens the address in Chromium; returns when the page has had a live event."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=list(FLAGS))
        page = browser.new_page()
        page.goto(address, timeout=left() * 1000)
        expect(page.locator("#tick-number")).to_have_text(re.compile(r"\d+"), timeout=left() * 1000)
        browser.close()


def main() -> None:
    """Prints the seconds of each step; fails when there are too many."""
    began = time.monotonic()
    marks: list[tuple[str, float]] = []

    def left() -> float:
        return max(1.0, MOST - (time.monotonic() - began))

    def mark(what: str) -> None:
        marks.append((what, time.monotonic() - began))

    # A short path: that of a Unix socket in it must have less than 108 characters.
    with tempfile.TemporaryDirectory(prefix="first") as name:
        folder, log = Path(name) / "clone", Path(name) / "log"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        mark("cloned")
        (command, *_) = commands((folder / "README.md").read_text("utf-8"))
        with running(command, folder, log) as process:
            address = printed_address(log, process, left)
            mark(f"{command}: installed, and ready at {address}")
            wait_for_event(address, left)
            mark("first live event in Chromium")
            before_end = time.monotonic()
        eventually(lambda: not living(Path(name)), END)
        print(f"{time.monotonic() - before_end:7.1f} s  from Ctrl-C until nothing of it was left")
    for what, seconds in marks:
        print(f"{seconds:7.1f} s  {what}")
    taken = dict(marks)["first live event in Chromium"]
    sys.exit(None if taken < MOST else f"{taken:.0f} s are more than {MOST:.0f}")


if __name__ == "__main__":
    main()
