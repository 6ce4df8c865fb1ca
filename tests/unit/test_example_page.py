"""The functions that the example's pages share."""

from __future__ import annotations

import pytest
from werkzeug.exceptions import BadRequest

from example_app.page import text_in


@pytest.mark.parametrize("sent", ["x", "12345", "  12345\n"])
def test_the_white_space_around_a_text_is_removed(sent: str) -> None:
    assert text_in({"text": sent}, "text", 5, "say something") == sent.strip()


@pytest.mark.parametrize("sent", ["", " \n", "123456", 5, ["x"], None])
def test_a_wrong_type_an_empty_and_a_too_long_text_are_refused_with_the_limit(sent: object) -> None:
    with pytest.raises(BadRequest) as refused:
        text_in({"text": sent}, "text", 5, "say something")
    assert refused.value.description == "say something, in at most 5 characters"


def test_a_missing_text_is_refused() -> None:
    with pytest.raises(BadRequest):
        text_in({}, "text", 5, "say something")
