"""Finds pages in no table of contents and broken links, which `make docs` finds late or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
WRITTEN = [*sorted(ROOT.glob("*.md")), ROOT / "flask_sse_push/static/README.md", *sorted(DOCS.glob("*.md"))]
WRITTEN += [path for path in sorted((ROOT / "deploy").iterdir()) if path.is_file()]
#: The repository's own files, in links that must also work on PyPI and npm.
OWN = re.compile(
    r"https://(?:github|raw\.githubusercontent)\.com/flask-sse-push/flask-sse-push/(?:blob/)?main/"
)


def anchors(path: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site name them."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_in_a_table_of_contents() -> None:
    tables = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text("utf-8"), re.DOTALL)
    named = [line for table in tables for line in table.splitlines() if line and line[0] != ":"]
    assert sorted(named) == sorted(set(PAGES) - {"index"})


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_have_a_target(path: Path) -> None:
    text = path.read_text("utf-8")
    addresses = re.findall(r"\]\(([^)\s]+)\)", text.replace("\n", ""))
    addresses += re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for target in addresses:
        own = OWN.match(target)
        if "://" in target and not own:
            continue
        name, _, anchor = OWN.sub("", target).partition("#")
        folder = ROOT if own else path.parent
        file = (folder / name) if name else path
        assert file.exists(), target
        assert folder != DOCS or file.resolve().is_relative_to(DOCS), f"{target} is not in the site"
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_stands_on_the_page_itself(path: Path) -> None:
    """GitHub shows nothing where Sphinx includes code from another file."""
    assert "literalinclude" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_machine_or_registry(path: Path) -> None:
    found = re.findall(
        r"/work/|/tmp/|/root/|/home/\w|--index-url|simple/|localhost:\d*/simple", path.read_text("utf-8")
    )
    assert not found


#: What people type into a search when their streams do not work.
SEARCHED = (
    "nothing arrives",
    "all at once",
    "proxy_buffering",
    "X-Accel-Buffering",
    "seventh tab",
    "worker timeout",
    "60 seconds",
    "works locally",
    "behind nginx, Cloudflare, ALB, Apache, HAProxy, Caddy or IIS",
    "CORS",
    "502 or 503",
    "events come twice",
    "MIME type",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "ERR_HTTP2_PROTOCOL_ERROR",
    "memory grows",
    "403",
)


def test_troubleshooting_has_the_words_that_people_search_for() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    assert [words for words in SEARCHED if words.lower() not in page.lower()] == []


def test_every_symptom_has_a_cause_and_a_remedy() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    for section in page.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        assert re.search(r"\bremedy\b|\bSet\b|\blimit\b|\bWrite\b|\bList\b|\bRun\b|\bUse\b", text), title
        assert len(text.split()) > 25, title


def test_the_site_shows_pictures_of_the_demo() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((images/[\w-]+\.png)\)", (DOCS / "index.md").read_text("utf-8"))
    assert len(pictures) >= 5
    assert [name for name in pictures if not (DOCS / name).exists()] == []
