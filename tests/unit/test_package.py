"""What is published: the sdist, the wheel and PyPI's page; the public names; the settings in the README."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import fields
from email import message_from_string
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path

import pytest
from readme_renderer import markdown

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
    "Message",
    "MessageAnnouncer",
    "MessageTooLarge",
    "SSEBlueprint",
    "SSEPushError",
    "ServerSentEventsBlueprint",
    "__version__",
    "event_published",
    "history_lost",
    "sse",
    "stream_closed",
    "stream_opened",
    "turbo",
}

# -- the sdist ----------------------------------------------------------------------------------------------


def build(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *arguments]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert built.returncode == 0, built.stdout


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout without what git ignores. setuptools writes files beside the sources."""
    copy = tmp_path_factory.mktemp("checkout") / "copy"
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    return Path(shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored)))


@pytest.fixture(scope="module")
def unpacked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked in an empty folder."""
    folder = tmp_path_factory.mktemp("sdist")
    # Building adds the folder *.egg-info to the copy, so `checkout` is compared without it.
    build("--sdist", "--outdir", folder, checkout)
    name = f"flask_sse_push-{flask_sse_push.__version__}"
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def test_the_sdist_has_every_file_of_the_checkout(checkout: Path, unpacked: Path) -> None:
    generated = {name for name in files(checkout) | files(unpacked) if ".egg-info/" in name}
    assert files(unpacked) - generated - {"PKG-INFO"} == files(checkout) - generated - {"PKG-INFO"}


def test_the_sdist_tests_itself(unpacked: Path, wheel: Path) -> None:
    """Runs tests of the package, of its documentation and with a real broker in the unpacked sdist."""
    quick = [
        "tests/unit/config/test_settings.py",
        "tests/unit/test_docs.py",
        "tests/integration/test_page_cursor.py",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quick]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    run = subprocess.run(
        command, cwd=unpacked, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert run.returncode == 0, run.stdout
    assert " passed in" in run.stdout


# -- the wheel ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    build("--wheel", "--outdir", folder, unpacked)
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
        "static/admin/page.html",
        "static/admin/page.css",
        "static/admin/views/why.js",
        "brokers/redis/lua/state.lua",
        "brokers/redis/lua/publish.lua",
        "brokers/redis/lua/publish_one.lua",
        "brokers/redis/lua/history.lua",
    ],
)
def test_the_wheel_contains_files_in_other_languages(contents: set[str], path: str) -> None:
    assert f"flask_sse_push/{path}" in contents


def test_the_wheel_contains_the_whole_package_and_nothing_else(checkout: Path, contents: set[str]) -> None:
    package = {name for name in files(checkout) if name.startswith("flask_sse_push/")}
    package.add("pytest_flask_sse_push.py")
    assert {name for name in contents if ".dist-info/" not in name} == package


def test_the_wheel_is_for_every_machine_and_has_the_licence(wheel: Path, contents: set[str]) -> None:
    assert wheel.name == f"flask_sse_push-{flask_sse_push.__version__}-py3-none-any.whl"
    assert any(name.endswith("/LICENSE") for name in contents)


def test_the_metadata_names_the_core_dependencies_and_the_extras(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    core = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
    assert core == {"blinker", "flask", "gevent", "gunicorn", "redis"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "database",
        "demo",
        "deploy",
        "docs",
        "embedded",
        "fast",
        "jwt",
        "limits",
        "login",
        "logs",
        "metrics",
        "screenshots",
        "tail",
        "test",
        "trace",
    }
    assert metadata["Requires-Python"] == ">=3.11"


# -- the page on PyPI ---------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Collects the addresses of all links and images of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def test_pypi_shows_the_readme_and_every_link_leads_out_of_the_page(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = markdown.render(str(metadata.get_payload()))
    assert page
    links = [link for link in Links(page).found if not link.startswith("#user-content-")]
    assert len(links) > 25
    relative = [link for link in links if not link.startswith("https://")]
    assert not relative, "PyPI cannot follow these links: write their addresses in full"
    assert not re.findall(r"\]\[[\w-]+\]", page), "a link has no address"


def test_pypi_links_to_the_documentation_the_changes_and_the_sources(metadata: Message) -> None:
    links = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert links.keys() == {"Homepage", "Documentation", "Changes", "Source", "Issues", "Security"}


def test_the_change_log_has_a_date_for_the_version_and_a_place_for_what_comes_next() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(flask_sse_push.__version__)} - 20\d\d-\d\d-\d\d", headings[1])


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
    source = inspect.getsource(config.settings).splitlines()
    (settings,) = (
        node for node in ast.parse("\n".join(source)).body if getattr(node, "name", "") == "Settings"
    )
    assert isinstance(settings, ast.ClassDef)
    return {
        node.target.id
        for node in settings.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if source[node.lineno - 2].strip().startswith("#:")
        if not ast.unparse(node.annotation).startswith("ClassVar")
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
        r"^\| (\d+) \| `(\w+)` \| [-\d, ]+ \| (yes|no) \| (.+) \|$",
        (ROOT / "docs/errors.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert rows == [
        (str(int(code)), code.name, "yes" if code.retry else "no", code.meaning)
        for code in flask_sse_push.ErrorCode
    ]
