"""What the tabs that share a stream are told, and what they keep, when the shared connection ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from playwright.sync_api import Page, Route

from .conftest import eventually_on
from .plain import Server
from .test_tabs import all_open, leader_of, received, server, tabs

__all__ = ["server", "tabs"]

NAMES = count()


@pytest.mark.parametrize("joins", ["the leader", "another tab"])
def test_a_join_is_repeated_if_the_leaders_connection_ends_before_the_answer(
    server: Server, tabs: Callable[..., Page], joins: str
) -> None:
    one, two, room = (f"lost-{name}-{next(NAMES)}" for name in ("one", "two", "room"))
    pages = [tabs(one), tabs(two)]
    all_open(pages)
    server.wait_for_streams(pages[0], {one, two})
    leader = leader_of(pages)
    page = leader if joins == "the leader" else next(page for page in pages if page != leader)
    answers: list[int] = []

    def end_the_stream_first(route: Route) -> None:
        # The broker keeps the order of commands: the stream ends, and the join finds no stream.
        connection = route.request.url.split("/stream/")[1].partition("~")[0]
        server.announcer.disconnect(connection=connection)
        answer = route.fetch()
        answers.append(answer.status)
        route.fulfill(response=answer)

    page.route("**/channels", end_the_stream_first)
    page.evaluate("name => client.join(name)", room)
    published = count()

    def hears_the_room() -> bool:
        server.announcer.publish(next(published), channel=room)
        return bool(received(page))

    eventually_on(page, hears_the_room)
    assert answers == [202]  # the server promised a join that it could not do
    assert page.evaluate("client.stats.connects") > 1
    first = int(received(page)[0])
    server.wait_for_streams(page, {one, two, room})  # in the end the tabs share again
    last = next(published)
    server.announcer.publish(last, channel=room)
    eventually_on(page, lambda: received(page)[-1:] == [str(last)])
    assert received(page) == [str(n) for n in range(first, last + 1)]


#: Opens a client whose token fails while `window.fail` is set, with an error that no tab can send to another.
FAILING = """async (name) => {
  const { PushClient } = await import("/stream/client/push-client.js");
  const token = () => {
    if (window.fail) throw () => {};
    return "";
  };
  const options = { tabs: true, minDelay: 50, maxRetries: 1, token };
  window.client = new PushClient(`/stream?channels=${name}`, options);
}"""


def test_all_tabs_learn_that_the_leader_gave_up_whatever_the_app_throws(
    server: Server, tabs: Callable[..., Page]
) -> None:
    names = [f"uncloneable-{n}" for n in range(2)]
    pages = [tabs(name) for name in names]
    for page, name in zip(pages, names, strict=True):
        page.evaluate("client.close()")
        page.evaluate(FAILING, name)
    all_open(pages)
    server.wait_for_streams(pages[0], set(names))

    def all_closed() -> bool:
        closed = [page.evaluate("client.state === 'closed'") for page in pages]
        if not any(closed):
            # A tab takes the lead from a slow leader. The shared stream may be just about to open again.
            leader_of(pages).evaluate("window.fail = true")
            server.announcer.disconnect(channel=names[0])
        return all(closed)

    eventually_on(pages[0], all_closed)
