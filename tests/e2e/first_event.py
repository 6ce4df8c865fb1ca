"""Measures the time from a fresh clone to the first live event in a browser, following only the README.

    make first-event

Clones the current commit, runs the README's first command in the clone without pip's cache, opens the address
that the command prints in Chromium, and waits for an event. Then stops everything.
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

#: Seconds that all steps together may take.
LIMIT = 300.0
#: Seconds that everything may take to end after Ctrl-C.
END_LIMIT = 30.0


def commands(readme: str) -> list[str]:
    """The commands of the README's first console block, without their comments."""
    block = re.search(r"^```console\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert block is not None, "the README has no console block"
    return [line[2:].partition("#")[0].strip() for line in block[1].splitlines() if line.startswith("$ ")]


@contextlib.contextmanager
def running(command: str, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command as a shell does, in its own process group. Sends Ctrl-C at the end of the block."""
    env = {key: value for key, value in os.environ.items() if not key.endswith("REDIS_URL")}
    env |= {"PORT": str(free_port()), "PIP_NO_CACHE_DIR": "1", "TMPDIR": str(log.parent)}
    env.pop("VIRTUAL_ENV", None)
    env.pop("MAKEFLAGS", None)  # make may have started this program
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
        process.wait(END_LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_LIMIT)


def processes_of(folder: Path) -> list[int]:
    """Pids of processes whose working directory or command line is in the folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            if line and (str(folder) in line or os.readlink(process / "cwd").startswith(str(folder))):
                pids.append(int(process.name))
    return pids


def printed_address(log: Path, process: subprocess.Popen[bytes], seconds_left: Callable[[], float]) -> str:
    """The address that the demo prints when it is ready."""

    def look() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"Open (http://\S+)", log.read_text())

    found = eventually(look, seconds_left(), every=0.1)
    assert found is not None
    return found[1]


def wait_for_event(address: str, seconds_left: Callable[[], float]) -> None:
    """Opens the address in Chromium. Returns when the page has shown a live event."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=list(FLAGS))
        page = browser.new_page()
        page.goto(address, timeout=seconds_left() * 1000)
        expect(page.locator("[data-tile=live]")).to_contain_text(
            re.compile(r"tick \d+"), timeout=seconds_left() * 1000
        )
        browser.close()


def main() -> None:
    """Prints the seconds of each step. Exits with 1 if the first event came too late."""
    began = time.monotonic()
    steps: list[tuple[str, float]] = []

    def seconds_left() -> float:
        return max(1.0, LIMIT - (time.monotonic() - began))

    def note(what: str) -> None:
        steps.append((what, time.monotonic() - began))

    # The path is short, since the path of a Unix socket must have less than 108 characters.
    with tempfile.TemporaryDirectory(prefix="first") as name:
        folder, log = Path(name) / "clone", Path(name) / "log"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        note("cloned")
        (command, *_) = commands((folder / "README.md").read_text("utf-8"))
        with running(command, folder, log) as process:
            address = printed_address(log, process, seconds_left)
            note(f"{command}: installed, and ready at {address}")
            wait_for_event(address, seconds_left)
            note("first live event in Chromium")
            before_end = time.monotonic()
        eventually(lambda: not processes_of(Path(name)), END_LIMIT)
        print(f"{time.monotonic() - before_end:7.1f} s  from Ctrl-C until all processes were gone")
    for what, seconds in steps:
        print(f"{seconds:7.1f} s  {what}")
    taken = dict(steps)["first live event in Chromium"]
    sys.exit(None if taken < LIMIT else f"{taken:.0f} s are more than {LIMIT:.0f} s")


if __name__ == "__main__":
    main()
