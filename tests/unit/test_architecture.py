"""docs/architecture.md names only files that exist, and every part of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

PACKAGE = ROOT / "flask_sse_push"
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
#: A file or folder in the page's text, tables and drawings. Its path begins at the package or the checkout.
PATH = re.compile(r"(?<![\w/<.-])((?:[a-z_-]+/)*(?:[a-z_-]+\.(?:py|js|d\.ts|lua|md)|[a-z_-]+/))(?![\w>])")
PATHS = sorted({match[1] for match in PATH.finditer(PAGE)})


def exists(path: str) -> bool:
    """Whether the path exists, below the package or the checkout. A bare name after `transports/…` counts
    too."""
    if (PACKAGE / path).exists() or (ROOT / path).exists():
        return True
    return "/" not in path and bool(list(PACKAGE.rglob(path)))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_that_the_page_names_exists(path: str) -> None:
    assert exists(path)


def test_the_page_names_many_paths_and_the_test_finds_a_wrong_one() -> None:
    assert len(PATHS) > 30
    assert not exists("hub/nowhere.py")
    assert not exists("nowhere.py")


def test_the_page_has_a_row_for_every_part_of_the_package() -> None:
    parts = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.name not in ("__pycache__", "__init__.py", "py.typed")
    }
    table = PAGE.partition("## The packages")[2].partition("\n## ")[0]
    assert {part for part in parts if f"`{part}`" not in table} == set()


def test_the_glossary_is_short_and_each_word_has_one_line() -> None:
    table = PAGE.partition("## The words")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:]
    words = [word for row, _ in rows for word in row.split(", ")]
    assert 20 <= len(rows) <= 34
    assert len(words) == len(set(words))


def test_the_table_of_changes_has_at_least_ten_rows() -> None:
    table = PAGE.partition("## What do I open to change")[2]
    rows = re.findall(r"^\| (?!I want|-)(.+?) \| .+ \|$", table, re.MULTILINE)
    assert len(rows) >= 10
    assert Path(PACKAGE / "cli").is_dir()
