"""The gate, the interpreters that it finds, and the workflows. `make deploy` checks the workflows' form."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
#: The versions of Python that setup.cfg declares, such as "3.11", the lowest first.
DECLARED = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.M)
WORKFLOWS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github/workflows").iterdir())
}
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_every_tool_and_page_names_the_versions_that_are_declared() -> None:
    lowest, highest = DECLARED[0], DECLARED[-1]
    assert SETUP["options"]["python_requires"] == f">={lowest}"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert tools["mypy"]["python_version"] == lowest
    assert WORKFLOWS["ci"]["jobs"]["gate"]["strategy"]["matrix"]["python"] == DECLARED
    for page in ("README.md", "CONTRIBUTING.md", "docs/quickstart.md"):
        assert f"Python {lowest} to {highest}" in (ROOT / page).read_text("utf-8")


# -- .ci/find-python ----------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for `PATH` that has only the programs that the scripts need from the system."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "env", "find", "sed", "sort"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


def find_python(version: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "PYENV_ROOT": str(path.parent / "pyenv"), "HOME": str(path.parent)}
    script = [str(path / "bash"), str(ROOT / ".ci/find-python"), version]
    return subprocess.run(script, env=environment, capture_output=True, text=True)


def test_a_python_on_the_path_is_found(path: Path) -> None:
    (path / f"python{HERE}").symlink_to(sys.executable)
    assert find_python(HERE, path).stdout == f"{path}/python{HERE}\n"


def test_a_python_of_pyenv_is_found_behind_a_shim_that_does_not_run(path: Path) -> None:
    command(path, f"python{HERE}", "echo 'pyenv: command not found' >&2; exit 127")
    for name in (f"{HERE}.2", f"{HERE}.10", f"{HERE}-dev"):
        folder = path.parent / "pyenv/versions" / name / "bin"
        folder.mkdir(parents=True)
        (folder / "python").symlink_to(sys.executable)
    assert find_python(HERE, path).stdout == f"{path.parent}/pyenv/versions/{HERE}.10/bin/python\n"


@pytest.mark.parametrize("script", ["echo 3.99", "exit 1"], ids=["of another version", "broken"])
def test_a_python_that_is_not_there_is_told(path: Path, script: str) -> None:
    command(path, f"python{HERE}", script)
    found = find_python(HERE, path)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"Python {HERE} is neither on the PATH nor among pyenv's versions.\n"


# -- .ci/run ------------------------------------------------------------------------------------------------


def gate(path: Path, tmp_path: Path, make: str) -> subprocess.CompletedProcess[str]:
    """Runs .ci/run in a checkout with two declared versions: this Python and one that nobody has."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    declared = "".join(f"    Programming Language :: Python :: {version}\n" for version in (HERE, "3.99"))
    (tmp_path / "setup.cfg").write_text(declared)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    for name in ("chromium", "firefox-esr", "redis-server", "nginx", "ip", "openssl", "psql", "mariadbd"):
        command(path, name, "exit 1")
    command(path, "make", make)
    script = [str(path / "bash"), str(tmp_path / ".ci/run")]
    environment = {"PATH": str(path), "PYENV_ROOT": str(tmp_path), "HOME": str(tmp_path)}
    return subprocess.run(script, env=environment, capture_output=True, text=True)


def test_the_gate_runs_each_stage_and_says_how_long_it_took(path: Path, tmp_path: Path) -> None:
    run = gate(path, tmp_path, 'echo "made $*"')
    assert run.returncode == 0, run.stderr
    made = re.findall(r"^made (.+)$", run.stdout, re.MULTILINE)
    assert made == ["test", "test-oldest", "coverage", "docs", "deploy"]
    for stage in made:
        assert re.search(rf"^== make {stage}: \d+ s$", run.stdout, re.MULTILINE)
    assert "chromium-headless-shell cannot be installed, so the browser tests take longer\n" in run.stdout
    assert f"== Python {HERE}: make test used it\n" in run.stdout
    assert "== Python 3.99: not on this machine, so not tested\n" in run.stdout
    assert re.search(r"^== all stages: \d+ s$", run.stdout, re.MULTILINE)


def test_the_gate_stops_at_the_first_stage_that_fails(path: Path, tmp_path: Path) -> None:
    run = gate(path, tmp_path, 'echo "made $*"; [ "$1" != test-oldest ]')
    assert run.returncode == 1
    assert re.search(r"^== make test-oldest: failed after \d+ s$", run.stdout, re.MULTILINE)
    assert "made test-oldest\n" in run.stdout
    assert "made coverage\n" not in run.stdout


# -- the workflows ------------------------------------------------------------------------------------------


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_to_a_commit_whose_version_stands_beside_it(name: str) -> None:
    text = (ROOT / f".github/workflows/{name}.yml").read_text("utf-8")
    used = [step["uses"] for step in steps(name) if "uses" in step]
    pinned = re.findall(r"uses: ([\w./-]+@[0-9a-f]{40}) # v\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert used == pinned


def test_ci_runs_the_gate() -> None:
    assert steps("ci")[-1] == {"run": ".ci/run"}


def test_a_release_needs_no_secret_and_lists_what_it_brings() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    assert "secrets." not in text
    jobs = WORKFLOWS["release"]["jobs"]
    assert WORKFLOWS["release"]["permissions"] == {}
    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "build": {"contents": "read"},
        "pypi": {"id-token": "write"},
        "npm": {"id-token": "write"},
        "github": {"contents": "write"},
    }
    assert jobs["pypi"]["environment"] == "pypi"
    commands = "\n".join(step.get("run", "") for step in steps("release"))
    for part in ("twine check --strict", "cyclonedx-py environment", "npm publish --provenance"):
        assert part in commands
