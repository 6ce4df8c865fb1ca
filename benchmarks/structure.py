"""Measures the source of a package: `python -m benchmarks.structure [FOLDER]`, flask_sse_push by default.

- **code lines**: lines of Python files that hold code. Blank lines, comment lines and docstrings do not
  count. JavaScript, TypeScript and Lua files are left out.
- **root entries**: files and folders directly in the package, without `__pycache__`.
- **root modules**: Python files directly in the package, without `__init__.py`.
- **import depth**: modules on the longest chain of imports inside the package. Only imports that run when the
  module is loaded count: none in functions, none under `TYPE_CHECKING`. `from . import x` imports the module
  `x`; if there is no module `x`, it imports the folder's `__init__.py`. Modules that import each other in a
  circle count as one.
- **with all imports**: the same depth with the imports in functions and under `TYPE_CHECKING`. It can be
  smaller, because these imports close circles.
- **circles** and **in circles**: with all imports, how many groups of modules import each other, and how many
  modules are in these groups.
- **longest file**: the Python file with the most lines; here, blank lines, comments and docstrings count.

Commit 5ecafea has 10,188 code lines, 71 root entries, 61 root modules and import depth 23. With all imports
the depth is 21, and 24 modules are in 3 circles.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from .process import ROOT

#: For each module, the modules that it imports.
Graph = Mapping[str, frozenset[str]]


class Structure(NamedTuple):
    """The figures of one package."""

    code_lines: int
    root_entries: int
    root_modules: int
    chain: tuple[str, ...]  # the longest chain of imports at load time, from the importing module down
    full_chain: tuple[str, ...]  # the same with all imports
    circles: tuple[tuple[str, ...], ...]  # with all imports
    longest_file: tuple[str, int]


def code_lines(source: str) -> int:
    """Returns the number of lines in `source` that hold code; see the module's docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in docstrings
        for number, line in enumerate(source.splitlines(), 1)
    )


def modules(folder: Path) -> dict[str, Path]:
    """Returns the package's modules by name. A folder's name means its `__init__.py`; "" means the
    package's."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix("__init__").strip("."): path
        for path in sorted(folder.rglob("*.py"))
    }


def at_load(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes of a module that run on loading: not functions, and not `TYPE_CHECKING` blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from at_load(other)
            continue
        yield node
        yield from at_load(node)


def imports(
    source: str, module: str, known: Mapping[str, Path], package: str, *, load_only: bool = False
) -> frozenset[str]:
    """Returns the modules of `package` that `module` imports. `known` contains all modules of the package."""
    here = module.split(".") if module else []
    if known[module].name != "__init__.py":
        here.pop()
    found: set[str] = set()
    tree = ast.parse(source)
    for node in at_load(tree) if load_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found.update(name for full in names if (name := _inside(full, package)) is not None)
        elif isinstance(node, ast.ImportFrom):
            base: str | None
            if node.level:
                base = ".".join(
                    [*here[: len(here) - node.level + 1], *([node.module] if node.module else [])]
                )
            else:
                base = _inside(node.module or "", package)
            if base is not None:
                found.update(_imported_from(base, [alias.name for alias in node.names], known))
    return frozenset(found & known.keys()) - {module}


def _inside(name: str, package: str) -> str | None:
    """Returns `name` without the package's name; None for a module outside the package."""
    head, _, rest = name.partition(".")
    return rest if head == package else None


def _imported_from(base: str, names: Sequence[str], known: Mapping[str, Path]) -> Iterator[str]:
    for name in names:
        module = f"{base}.{name}".strip(".")
        yield module if module in known else base


def graph(folder: Path, *, load_only: bool = False) -> dict[str, frozenset[str]]:
    """Returns the imports inside the package: all imports, or those that run when a module is loaded."""
    known = modules(folder)
    return {
        name: imports(path.read_text("utf-8"), name, known, folder.name, load_only=load_only)
        for name, path in known.items()
    }


def reachable(edges: Graph) -> dict[str, frozenset[str]]:
    """Returns, for each module, the modules that it imports, directly or through other modules."""
    found = {}
    for module in edges:
        seen: set[str] = set()
        waiting = list(edges[module])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += edges[name]
        found[module] = frozenset(seen)
    return found


def circles(edges: Graph) -> dict[str, tuple[str, ...]]:
    """Returns, for each module, the modules of its circle with itself; only itself if it is in no circle."""
    below = reachable(edges)
    return {
        module: tuple(sorted({module, *(name for name in below[module] if module in below[name])}))
        for module in edges
    }


def longest_chain(edges: Graph) -> tuple[str, ...]:
    """Returns the longest chain of imports, from the importing module down. A circle counts as one module."""
    circle = circles(edges)
    collapsed: dict[str, set[str]] = {}
    for module, targets in edges.items():
        name = circle[module][0]
        collapsed.setdefault(name, set()).update(circle[target][0] for target in targets)
        collapsed[name].discard(name)
    chains: dict[str, tuple[str, ...]] = {}
    for name in TopologicalSorter(collapsed).static_order():
        longest = max((chains[target] for target in sorted(collapsed[name])), key=len, default=())
        chains[name] = (name, *longest)
    return max((chains[name] for name in sorted(chains)), key=len, default=())


def measure(folder: Path) -> Structure:
    """Returns all figures of the package in `folder`."""
    edges = graph(folder)
    sources = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in modules(folder).values()
    }
    lengths = {name: len(source.splitlines()) for name, source in sources.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    return Structure(
        code_lines=sum(map(code_lines, sources.values())),
        root_entries=sum(path.name != "__pycache__" for path in folder.iterdir()),
        root_modules=sum(path.name != "__init__.py" for path in folder.glob("*.py")),
        chain=longest_chain(graph(folder, load_only=True)),
        full_chain=longest_chain(edges),
        circles=tuple(sorted({circle for circle in circles(edges).values() if len(circle) > 1})),
        longest_file=(longest, lengths[longest]),
    )


def table(found: Structure) -> list[str]:
    """Returns one line per figure."""
    rows = {
        "code lines": f"{found.code_lines:,}",
        "root entries": f"{found.root_entries}",
        "root modules": f"{found.root_modules}",
        "import depth": f"{len(found.chain)}",
        "with all imports": f"{len(found.full_chain)}",
        "circles": f"{len(found.circles)}",
        "in circles": f"{sum(map(len, found.circles))}",
        "longest file": f"{found.longest_file[0]}, {found.longest_file[1]} lines",
    }
    return [f"{name:17} {value}" for name, value in rows.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "flask_sse_push")
    parser.add_argument("--list", action="store_true", help="the longest chains of imports, and the circles")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    if not (folder / "__init__.py").is_file():
        parser.error(f"{folder} has no __init__.py")
    found = measure(folder)
    print("\n".join(table(found)))
    if options.list:
        lists = {"import depth": found.chain, "with all imports": found.full_chain}
        for number, circle in enumerate(found.circles, 1):
            lists[f"circle {number}"] = circle
        for title, names in lists.items():
            print(f"\n{title}:", *(name or folder.name for name in names), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
