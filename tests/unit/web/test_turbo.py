"""Turbo Streams: the elements that `turbo` writes, and what it costs if it is not used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from markupsafe import Markup

import flask_sse_push
from flask_sse_push import turbo
from flask_sse_push.protocol.event import make_event


@pytest.mark.parametrize("action", ["append", "prepend", "before", "after", "replace", "update"])
def test_an_action_with_html(action: str) -> None:
    element = getattr(turbo, action)("orders", "<li>a & b</li>")
    expected = (
        f'<turbo-stream action="{action}" target="orders"><template><li>a & b</li></template></turbo-stream>'
    )
    assert element == expected


@pytest.mark.parametrize("action", ["replace", "update"])
def test_an_action_may_morph(action: str) -> None:
    assert getattr(turbo, action)("a", "b", morph=True).startswith(
        f'<turbo-stream action="{action}" target="a" method="morph"><template>b<'
    )


def test_the_actions_without_html() -> None:
    assert turbo.remove("a") == '<turbo-stream action="remove" target="a"></turbo-stream>'
    assert turbo.refresh() == '<turbo-stream action="refresh"></turbo-stream>'


def test_targets_are_escaped_and_html_is_not() -> None:
    assert 'target="&#34;&gt;&lt;b&gt;"' in turbo.remove('"><b>')
    assert 'targets="a[title=&#34;x&#34;] &gt; b"' in turbo.remove(targets='a[title="x"] > b')
    assert "<template><b>x</b></template>" in turbo.update("a", Markup("<b>x</b>"))


@pytest.mark.parametrize("where", [{}, {"target": ""}, {"target": "a", "targets": ".b"}])
def test_an_action_needs_one_target(where: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"turbo\.remove needs the id of an element"):
        turbo.remove(**where)


def test_elements_can_be_added_up_and_published() -> None:
    both = turbo.remove("a") + turbo.append("b", "<p>\nc</p>")
    event = make_event(both)
    assert (event.data, type(event.data), event.is_json) == (str(both), str, False)


def test_without_use_the_module_is_not_imported() -> None:
    code = "import flask_sse_push, sys; sys.exit('flask_sse_push.web.turbo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_another_name_is_still_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'flask_sse_push' has no attribute 'turbine'"):
        flask_sse_push.turbine  # noqa: B018


@pytest.mark.parametrize("html", [None, 5, b"<p></p>", ["<p></p>"]])
def test_what_is_no_html_is_refused(html: Any) -> None:
    with pytest.raises(TypeError, match=r"^turbo\.append needs HTML: text or Markup, not "):
        turbo.append("a", html)
