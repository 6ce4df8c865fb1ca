"""`benchmarks.structure` measures the source of a small package."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import structure

SOURCES = {
    "__init__.py": '"""The package."""\n\nfrom .top import Top\n',
    "top.py": "from .parts import middle\n\n\nclass Top:\n    pass\n",
    "parts/__init__.py": "from shop import errors\n",
    "parts/middle.py": "if TYPE_CHECKING:\n    from .bottom import Bottom\nimport json\nimport shop.errors\n",
    "parts/bottom.py": "class Bottom:\n    def up(self):\n        from . import middle\n        return 1\n",
    "errors.py": "import json\n",
    "static/page.js": "not python",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    (tmp_path / "shop" / "__pycache__").mkdir()
    return tmp_path / "shop"


def test_a_package_is_measured(shop: Path) -> None:
    assert structure.measure(shop) == structure.Structure(
        code_lines=1 + 3 + 1 + 4 + 4 + 1,
        root_entries=5,
        root_modules=2,
        chain=("", "top", "parts.middle", "errors"),
        full_chain=("", "top", "parts.bottom", "errors"),
        circles=(("parts.bottom", "parts.middle"),),
        longest_file=("top.py", 5),
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ("# a comment\n\nx = 1  # another one\n", 1),
        ('"""One line."""\nx = 1\n', 1),
        ('def f():\n    """Two\n\n    lines."""\n    return 1\n', 2),
        ('class A:\n    """Only a docstring."""\n', 1),
        ('x = """no\ndocstring"""\n', 2),
        ("x = (\n    1,\n)\n", 3),
    ],
)
def test_lines_of_code_are_neither_blank_nor_comments_nor_docstrings(source: str, lines: int) -> None:
    assert structure.code_lines(source) == lines


@pytest.mark.parametrize(
    ("source", "all_of_them", "at_load"),
    [
        ("from ..errors import Oops", {"errors"}, {"errors"}),
        ("from .. import top, errors", {"top", "errors"}, {"top", "errors"}),
        ("from . import bottom, something", {"parts", "parts.bottom"}, {"parts", "parts.bottom"}),
        ("import shop.top, os", {"top"}, {"top"}),
        ("import shopping.top", set(), set()),
        ("from shop.parts.bottom import Bottom", {"parts.bottom"}, {"parts.bottom"}),
        ("try:\n    from ..top import Top\nexcept ImportError:\n    pass", {"top"}, {"top"}),
        ("def f():\n    from ..top import Top", {"top"}, set()),
        (
            "if TYPE_CHECKING:\n    from ..top import Top\nelse:\n    import shop.errors",
            {"top", "errors"},
            {"errors"},
        ),
    ],
)
def test_an_import_is_found_in_each_form(
    shop: Path, source: str, all_of_them: set[str], at_load: set[str]
) -> None:
    known = structure.modules(shop)
    assert structure.imports(source, "parts.middle", known, "shop") == all_of_them
    assert structure.imports(source, "parts.middle", known, "shop", load_only=True) == at_load


def test_a_circle_counts_as_one_module_of_the_chain() -> None:
    edges = {
        "a": frozenset({"b"}),
        "b": frozenset({"c"}),
        "c": frozenset({"b", "d"}),
        "d": frozenset[str](),
        "e": frozenset({"d"}),
    }
    assert structure.longest_chain(edges) == ("a", "b", "d")
    assert structure.circles(edges)["c"] == ("b", "c")
    assert structure.circles(edges)["d"] == ("d",)


def test_the_command_names_the_figures(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert structure.main([str(shop), "--list"]) == 0
    shown = capsys.readouterr().out
    assert "import depth      4\n" in shown
    assert "longest file      top.py, 5 lines\n" in shown
    assert "circle 1:\n  parts.bottom\n  parts.middle\n" in shown
