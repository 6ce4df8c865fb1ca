"""The client as a package: its declarations, what npm packs, and how big it is."""

from __future__ import annotations

import gzip
import json
import os
import posixpath
import re
import subprocess
from typing import Any

import pytest

from flask_sse_push import __version__
from tests.support.processes import ROOT, need

CLIENT = ROOT / "flask_sse_push" / "static"
JS = ROOT / "tests" / "js"
#: Bytes of the core after gzip, comments and all, as a server with compression sends it.
MAX_CORE = 5000


def installed(name: str) -> str:
    """The path of an npm program that the tests install."""
    need("node")
    path = JS / "node_modules" / ".bin" / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail("run `npm install` in tests/js")
        pytest.skip("run `npm install` in tests/js")
    return str(path)


def modules(suffix: str = ".js") -> list[str]:
    """The client's files with this ending, as paths in its folder."""
    return sorted(path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob(f"*{suffix}"))


def core() -> list[str]:
    """`push-client.js` and every module that it imports statically."""
    found = ["push-client.js"]
    for name in found:
        imported = re.findall(r'^import .* from "(\.\.?/.+)";$', (CLIENT / name).read_text(), re.MULTILINE)
        paths = [posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in imported]
        found += [path for path in paths if path not in found]
    return found


def core_size() -> int:
    return sum(len(gzip.compress((CLIENT / name).read_bytes(), 9)) for name in core())


def test_the_core_is_small_and_the_readme_says_how_small() -> None:
    assert core() == ["push-client.js", "sources/native.js"]
    assert core_size() <= MAX_CORE
    (told,) = re.findall(r"\*\*([\d.]+) kB\*\* gzipped", (ROOT / "README.md").read_text("utf-8"))
    assert float(told) == round(core_size() / 1000, 1)


def test_the_declarations_hold() -> None:
    command = [installed("tsc"), "-p", str(JS)]
    checked = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400
    )
    assert checked.returncode == 0, checked.stdout


def test_npm_packs_all_of_it() -> None:
    command = [need("npm"), "pack", "--dry-run", "--json", "--offline"]
    packed = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=180)
    assert packed.returncode == 0, packed.stderr
    (told,) = json.loads(packed.stdout)
    manifest: dict[str, Any] = json.loads((CLIENT / "package.json").read_text())
    assert told["version"] == manifest["version"] == __version__
    assert {file["path"] for file in told["files"]} == {
        path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*") if path.is_file()
    }
    for entry in manifest["exports"].values():
        assert all((CLIENT / path).is_file() for path in entry.values())


@pytest.mark.parametrize("name", modules())
def test_a_strict_content_security_policy_lets_it_run(name: str) -> None:
    text = (CLIENT / name).read_text()
    assert not re.search(r"\beval\(|new Function|innerHTML|document\.write|javascript:", text)
