"""An entry names its channels, and the tabs that it excludes, for streams that several tabs share."""

from __future__ import annotations

import pytest

from flask_sse_push.protocol.entry import Entry, tab_of
from flask_sse_push.protocol.event import make_event


@pytest.mark.parametrize(
    ("exclude", "field"),
    [
        ((), "channel: a"),
        (("c0ffee", "user@example.org"), "channel: a"),
        (("c0ffee~tab1",), "channel: a,~tab1"),
        (("2~t-2", "1~t-1"), "channel: a,~t-1,~t-2"),
        (("c0ffee~tab\nevent: x", "c0ffee~", "~" + "t" * 41, "c~é"), "channel: a"),
    ],
)
def test_a_tagged_frame_names_channels_and_excluded_tabs(exclude: tuple[str, ...], field: str) -> None:
    entry = Entry("e0", 1, 0, make_event("x").encode(), frozenset(exclude), channels=("a", "b"))
    assert entry.tagged(("a", "c")) == f"{field}\n".encode() + entry.frame


def test_only_the_id_of_a_tab_has_a_part_of_the_tabs_own() -> None:
    assert tab_of("c0ffee~tab1") == "~tab1"
    assert tab_of("c0ffee") == ""
