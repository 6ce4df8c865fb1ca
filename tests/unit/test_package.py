"""The installed package: the wheel's contents, the public names, and the settings in the README."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import flask_sse_push
from flask_sse_push import config
from flask_sse_push.config import Settings
from tests.support.processes import ROOT

PUBLIC = {
    "BearerJWT",
    "BrokerUnavailable",
    "ConfigError",
    "ErrorCode",
    "Identity",
    "InvalidEvent",
    "InvalidPayload",
    "MessageAnnouncer",
    "MessageTooLarge",
    "SSEBlueprint",
    "SSEPushError",
    "__version__",
    "event_published",
    "history_lost",
    "sse",
    "stream_closed",
    "stream_opened",
}

# -- the wheel ----------------------------------------------------------------------------------------------


def can_build_here() -> bool:
    """Whether setuptools can build wheels here without the package `wheel`, which it can since 70.1."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) >= (70, 1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel from a copy, because setuptools writes files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    shutil.copytree(
        ROOT / "flask_sse_push", copy / "flask_sse_push", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(copy)]
    if can_build_here():
        command.append("--no-isolation")
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert built.returncode == 0, built.stdout
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


@pytest.mark.parametrize(
    "path",
    [
        "py.typed",
        "static/push-client.js",
        "static/push-client.d.ts",
        "static/package.json",
        "static/sources/fetch.js",
        "static/tabs/election.js",
        "static/frameworks/react.js",
        "static/frameworks/react.d.ts",
        "brokers/redis/lua/state.lua",
        "brokers/redis/lua/publish.lua",
        "brokers/redis/lua/history.lua",
    ],
)
def test_the_wheel_contains_files_in_other_languages(contents: set[str], path: str) -> None:
    assert f"flask_sse_push/{path}" in contents


def test_the_wheel_contains_the_whole_package_and_nothing_else(contents: set[str]) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "flask_sse_push").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in contents if ".dist-info/" not in name} == files


def test_the_wheel_is_for_every_machine_and_has_the_licence(wheel: Path, contents: set[str]) -> None:
    assert wheel.name == f"flask_sse_push-{flask_sse_push.__version__}-py3-none-any.whl"
    assert any(name.endswith("/LICENSE") for name in contents)


def test_the_metadata_names_the_core_dependencies_and_the_extras(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    core = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
    assert core == {"flask", "gevent", "gunicorn", "redis"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "demo",
        "deploy",
        "docs",
        "embedded",
        "jwt",
        "limits",
        "login",
        "logs",
        "metrics",
        "screenshots",
        "tail",
        "test",
    }
    assert metadata["Requires-Python"] == ">=3.11"


# -- the public names ---------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert set(flask_sse_push.__all__) == PUBLIC
    assert len(flask_sse_push.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    found = getattr(flask_sse_push, name)
    assert name == "__version__" or inspect.getdoc(found)


def test_the_ready_blueprint_is_named_as_flask_sse_has_it() -> None:
    assert flask_sse_push.sse.name == "sse"


# -- the settings in the README -----------------------------------------------------------------------------

ROW = re.compile(r"^\| `(SSE_PUSH_\w+)` \| (?:`([^`]*)`|empty) \| (.+) \|$", re.MULTILINE)
TABLE = {row[1]: (row[2] or "", row[3]) for row in ROW.finditer((ROOT / "README.md").read_text("utf-8"))}
NAMES = [spec.name for spec in fields(Settings)]


def documented() -> set[str]:
    """Returns the fields of Settings that have a `#:` comment directly above them."""
    source = inspect.getsource(config).splitlines()
    (settings,) = (
        node for node in ast.parse("\n".join(source)).body if getattr(node, "name", "") == "Settings"
    )
    assert isinstance(settings, ast.ClassDef)
    return {
        node.target.id
        for node in settings.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if source[node.lineno - 2].strip().startswith("#:")
    }


def test_every_setting_has_its_line_of_documentation() -> None:
    assert documented() == set(NAMES)


def test_the_readme_has_a_row_for_every_setting_and_no_other() -> None:
    assert list(TABLE) == [Settings.key(name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_in_the_readme_is_the_default(name: str) -> None:
    key = Settings.key(name)
    shown, meaning = TABLE[key]
    default = getattr(Settings(), name)
    # The README groups digits for readers. A value in the environment must not.
    value = shown if isinstance(default, (str, tuple)) else shown.replace("_", "")
    assert getattr(Settings.load({}, {key: value}), name) == default
    assert meaning


# -- the table of errors ------------------------------------------------------------------------------------


def test_the_table_of_errors_is_the_one_in_the_code() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \| [-\d]+ \| (yes|no) \| (.+) \|$",
        (ROOT / "docs/errors.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert rows == [
        (str(int(code)), code.name, "yes" if code.retry else "no", code.meaning)
        for code in flask_sse_push.ErrorCode
    ]
