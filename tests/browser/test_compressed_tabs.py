"""All tabs share one connection, also if the server compresses its streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .plain import Server, running
from .test_tabs import (
    tabs,
    test_a_tab_that_resumes_gets_what_it_missed_and_then_shares,
    test_clients_of_one_page_share_too_and_join_channels,
    test_ten_tabs_with_different_channels_use_one_connection,
    test_when_the_leader_is_closed_another_takes_over,
)

__all__ = [
    "tabs",
    "test_a_tab_that_resumes_gets_what_it_missed_and_then_shares",
    "test_clients_of_one_page_share_too_and_join_channels",
    "test_ten_tabs_with_different_channels_use_one_connection",
    "test_when_the_leader_is_closed_another_takes_over",
]


@pytest.fixture(scope="module")
def server(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"SSE_PUSH_HEARTBEAT": "2", "SSE_PUSH_HTTP_COMPRESSION": "true"}
    with running(valkey_url, tmp_path_factory.mktemp("compressed"), **settings) as server:
        yield server
