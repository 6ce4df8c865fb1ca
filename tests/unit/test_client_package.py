"""The client as an npm package: its type declarations, its files and its size."""

from __future__ import annotations

import gzip
import json
import os
import posixpath
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from flask_sse_push import __version__
from tests.support.processes import ROOT, need

CLIENT = ROOT / "flask_sse_push" / "static"
JS = ROOT / "tests" / "js"
#: All JavaScript that browsers get, of the package and of the example app.
SCRIPTS = [*sorted(CLIENT.rglob("*.js")), *sorted((ROOT / "example_app").rglob("static/*.js"))]
#: Limit on the bytes of the core after gzip, with its comments, as a server with compression sends it.
MAX_CORE = 5000
MAX_LINES = 350


def installed(name: str) -> str:
    """Returns the path of an npm program that the tests install."""
    need("node")
    path = JS / "node_modules" / ".bin" / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail("run `npm install` in tests/js")
        pytest.skip("run `npm install` in tests/js")
    return str(path)


def core() -> list[str]:
    """Returns `push-client.js` and every module that it imports statically."""
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
    (stated,) = re.findall(r"\*\*([\d.]+) kB\*\* gzipped", (ROOT / "README.md").read_text("utf-8"))
    assert float(stated) == round(core_size() / 1000, 1)


def tsc(*arguments: str) -> str:
    """Runs TypeScript over the client, `tests/js/types.ts` and the example app; returns its output."""
    command = [installed("tsc"), "-p", str(JS), *arguments]
    checked = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400
    )
    assert checked.returncode == 0, checked.stdout
    return checked.stdout


def test_types_and_declarations_are_right_in_every_module() -> None:
    tsc()
    checked = {Path(line).resolve() for line in tsc("--listFilesOnly").splitlines()}
    assert checked.issuperset([*SCRIPTS, *CLIENT.rglob("*.d.ts")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_editors_check_a_modules_types_too_and_it_is_not_long(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == "// @ts-check"
    assert len(lines) <= MAX_LINES
    assert not [line for line in lines if re.search(r"@ts-(ignore|nocheck|expect-error)", line)]


@pytest.mark.parametrize("path", sorted((JS / "unit").glob("*.test.mjs")), ids=lambda path: path.name)
def test_a_module_alone_in_node(path: Path) -> None:
    command = [need("node"), "--test", "--test-reporter=tap", str(path)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert run.returncode == 0, run.stdout
    assert re.search(r"^# pass [1-9]", run.stdout, re.MULTILINE)


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    """Runs a command that must succeed; returns what it printed."""
    run = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `npm publish` would upload it."""
    folder = tmp_path_factory.mktemp("npm")
    output(need("npm"), "pack", "--silent", "--offline", "--pack-destination", folder, cwd=CLIENT)
    return folder / f"flask-sse-push-client-{__version__}.tgz"


def test_npm_packs_all_files_and_every_export_exists(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        packed = {posixpath.relpath(name, "package") for name in archive.getnames()}
    files = {path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*") if path.is_file()}
    # Only the server sends the admin page.
    assert packed == {path for path in files if not path.startswith("admin/")}
    manifest: dict[str, Any] = json.loads((CLIENT / "package.json").read_text())
    assert manifest["version"] == __version__
    for entry in manifest["exports"].values():
        assert {posixpath.normpath(path) for path in entry.values()} <= files


def test_publint_finds_nothing_to_mend(tarball: Path) -> None:
    assert "All good!" in output(installed("publint"), "--strict", tarball)


def test_every_kind_of_bundler_and_typescript_finds_the_modules_and_their_types(tarball: Path) -> None:
    # The client is written for browsers, so it has only ES modules, which CommonJS cannot `require`.
    checked = output(installed("attw"), "--ignore-rules=cjs-resolves-to-esm", "--", tarball)
    assert "No problems found" in checked


def test_the_lock_file_has_the_tools_of_the_tests_and_no_address_of_a_registry() -> None:
    locked = json.loads((JS / "package-lock.json").read_text())
    wanted = json.loads((JS / "package.json").read_text())["devDependencies"]
    assert locked["packages"][""]["devDependencies"] == wanted, "run `npm install` in tests/js"
    assert not [name for name, package in locked["packages"].items() if "resolved" in package]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_strict_content_security_policy_lets_it_run(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"\beval\(|new Function|innerHTML|document\.write|javascript:", text)
