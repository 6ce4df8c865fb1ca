"""The checks that explain why a user got nothing. Each check looks at one kind of fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...brokers.redis.broker import RedisBroker
from ...monitoring.backlog import of_current_app
from .visit import counted, shown

if TYPE_CHECKING:
    from ..services import Services

#: How much a finding explains; the levels of `flask sse doctor`.
OK, WARNING, BROKEN = "ok", "warning", "broken"
#: If a client has taken nothing for this many seconds, it is slow.
SLOW = 2.0
#: If a stream has yet to get an event that is older than this, in seconds, the event is late.
LATE = 5.0
#: If an event has waited for this many seconds in an outbox, no relay works.
WAITED = 10.0


class Reason(NamedTuple):
    """What one check found: whether it explains that a user got nothing, and what to do.

    `level` is broken, warning or ok. `link` says where the page shows more: its kind and a name.
    """

    level: str
    name: str
    what: str
    advice: str = ""
    link: Mapping[str, str] | None = None


class Case(NamedTuple):
    """What all workers and the broker say about the user and the channel of a question."""

    services: Services
    user: str | None
    address: str | None
    channel: str
    streams: Sequence[Mapping[str, Any]]  # those of the user, or of the address, or of the channel
    total: int  # how many such streams there are
    workers: Sequence[Mapping[str, Any]]  # the states of the workers that answered
    missing: Sequence[str]  # the names of the workers that did not answer
    kept: Mapping[str, Any]  # the events that the broker keeps for the channel
    problem: str  # why the broker could not be asked about the channel; empty if it answered
    refusals: Sequence[Mapping[str, Any]]  # the newest refusal of each worker for this user or address

    @property
    def who(self) -> str:
        """The user, the address or the channel of the question, as the subject of a sentence."""
        if self.user:
            return f"User {shown(self.user)!r}"
        return f"The address {shown(self.address)!r}" if self.address else f"The channel {self.channel!r}"

    @property
    def to_channel(self) -> dict[str, str]:
        """The link to the view of the channel."""
        return {"kind": "channel", "name": self.channel}

    @property
    def listening(self) -> list[Mapping[str, Any]]:
        """The streams that listen to the channel."""
        return [stream for stream in self.streams if self.channel in stream["channels"]]


def refusals(case: Case) -> Iterator[Reason]:
    """Yields the newest refusal of the user or the address, unless a stream listens to the channel now."""
    if case.refusals and not case.listening:
        newest = max(case.refusals, key=lambda each: float(each["at"]))
        ago = max(0.0, time.time() - float(newest["at"]))
        what = f"{case.who} was refused with {newest['status']}, {ago:.0f} s ago: {newest['message']}"
        name = "not_authorized" if newest["status"] in (401, 403) else "refused"
        advice = "The message of the refusal says what to change."
        yield Reason(BROKEN, name, what, advice, case.to_channel)


def connection(case: Case) -> Iterator[Reason]:
    """Yields a reason if there is no stream, or if none of the streams listens to the channel."""
    if not case.total:
        on = " on the workers that answered" if case.missing else ""
        advice = (
            "The page is closed, has no network, or its request is refused. Look for `refused` in the log of "
            "the workers, and at the console of the browser."
        )
        what = f"{case.who} has no open stream{on}."
        yield Reason(BROKEN, "not_connected", what, advice, case.to_channel)
    elif not case.listening and case.total <= len(case.streams):
        names = ", ".join(dict.fromkeys(name for each in case.streams for name in each["channels"][:5]))
        streams = counted(case.total, "open stream")
        which = "which does not listen" if case.total == 1 else "none of which listens"
        what = f"{case.who} has {streams}, {which} to {case.channel!r}."
        owner = "Its channels are" if case.total == 1 else "Their channels are"
        advice = f"{owner} {shown(names)}. Name the channel in the address of the stream, or join it."
        yield Reason(BROKEN, "not_listening", what, advice, _stream(case.streams[0]))


def hearing(case: Case) -> Iterator[Reason]:
    """Yields a reason for each worker without link or answer, and for a silent or unshared broker."""
    # The streams that were found lie on workers that answer.
    level, kind = (WARNING, "other_worker_silent") if case.total else (BROKEN, "worker_deaf")
    for name in case.missing:
        what = f"The worker {shown(name)} did not answer: it is deaf to the broker, hangs, or was killed."
        advice = (
            "Read its log and its /health. If it was killed just now, it disappears from here in some "
            "seconds. Else restart it: its clients then connect again and get what they missed."
        )
        yield Reason(level, kind, what, advice, {"kind": "worker", "name": str(name)})
    for state in case.workers:
        if state["streams"] and not state["connected"]:
            what = f"The worker {state['worker']} (pid {state['pid']}) has lost its link to the broker."
            advice = (
                "Check the network to the broker and its rights: `flask sse doctor` says what is missing."
            )
            yield Reason(BROKEN, "worker_deaf", what, advice, {"kind": "worker", "name": state["worker"]})
    if case.problem:
        what = f"The broker could not be asked about {case.channel!r}: {shown(case.problem)}"
        advice = "Run `flask sse doctor`, or look at what the doctor finds here."
        yield Reason(BROKEN, "broker_unavailable", what, advice, {"kind": "doctor", "name": ""})
    several = case.services.broker_not_shared()
    if several:
        what = f"The broker is memory://, which serves one process, but {several}."
        yield Reason(BROKEN, "broker_not_shared", what, "Set SSE_PUSH_BROKER_URL to a URL that all share.")


def clients(case: Case) -> Iterator[Reason]:
    """Yields a reason for each stream whose client is slow, or that has yet to get events."""
    for stream in case.streams:
        name, waited = stream["connection"], stream["waiting"]
        if waited is not None and waited >= SLOW:
            what = (
                f"The client of stream {name} has taken nothing for {waited:.0f} s; "
                f"it has yet to take {counted(stream['buffered'], 'byte')} here, and more in the system."
            )
            advice = (
                "Its network or its page is too slow. After SSE_PUSH_WRITE_TIMEOUT seconds the worker cuts "
                "the stream, and the client comes back for the rest. Publish less, or larger batches."
            )
            yield Reason(BROKEN, "slow_client", what, advice, _stream(stream))
        elif stream["behind"]:
            what = f"The stream {name} still gets events that it missed."
            yield Reason(WARNING, "catching_up", what, "Wait a moment and ask again.", _stream(stream))
        elif (stream["lag"]["seconds"] or 0) > LATE:
            lag = stream["lag"]
            events = counted(lag["events"], "event")
            what = f"The stream {name} lacks {events}, the oldest from {lag['seconds']:.0f} s ago."
            advice = "Its worker hears nothing or is too busy: look at the worker's link and its load."
            yield Reason(BROKEN, "late", what, advice, {"kind": "worker", "name": stream["worker"]})


def history(case: Case) -> Iterator[Reason]:
    """Yields a reason for each stream that lost events, or one if the channel's events are gone."""
    policy = case.services.settings.policies[case.channel]
    rule = f"the channel keeps {counted(policy.history, 'event')} for {policy.ttl:g} s"
    advice = (
        "Keep more: raise `history` or `ttl` for this channel in SSE_PUSH_CHANNELS, or the general settings."
    )
    lost = [stream for stream in case.listening if stream["lost_at"]]
    for stream in lost:
        what = f"The stream {stream['connection']} got sse.reset: events that it missed are gone ({rule})."
        yield Reason(BROKEN, "history_gone", what, advice, _stream(stream))
    if case.kept["gone"] and not lost:
        all_gone = not case.kept["events"]
        what = f"{'All' if all_gone else 'The older'} events of {case.channel!r} are gone ({rule})."
        what += " A client that comes now does not get them."
        yield Reason(WARNING if all_gone else OK, "history_gone", what, advice, case.to_channel)


def publishing(case: Case) -> Iterator[Reason]:
    """Yields a reason if events lie elsewhere, wait in an outbox, or were never published."""
    if case.problem:
        return
    found = list(_elsewhere(case))
    yield from found
    if not (case.kept["events"] or case.kept["gone"] or found):
        what = f"The broker has no event of {case.channel!r}."
        advice = (
            "Publish a test event from this page. If that one arrives, the publisher names another channel, "
            "or uses another broker or SSE_PUSH_PREFIX: run `flask sse doctor` where it runs."
        )
        yield Reason(WARNING, "nothing_published", what, advice, case.to_channel)
    for outbox in of_current_app():
        yield from _waiting(outbox)


def _elsewhere(case: Case) -> Iterator[Reason]:
    broker, settings = case.services.publishing.broker, case.services.settings
    if not isinstance(broker, RedisBroker):
        return
    from ...brokers.redis.surroundings import elsewhere

    # What lies elsewhere from before a reset explains less than the reset, which this app has seen itself.
    since = max(case.kept["newest"] or 0, *[stream["lost_at"] or 0 for stream in case.listening], 0)
    for each in elsewhere(broker, settings.prefix, case.channel):
        is_newer = each.newest / 1e6 > since
        own = f"this app reads the prefix {settings.prefix!r} in its own database"
        if each.database is None:
            own = f"this app reads the prefix {settings.prefix!r}"
            place = f"under the prefix {each.prefix!r}, in the database of this app"
        else:
            place = f"in database {each.database}"
        what = f"Events of {case.channel!r} lie {place}, but {own}."
        advice = (
            "A publisher has another SSE_PUSH_PREFIX or another database in SSE_PUSH_BROKER_URL: give all "
            "processes of the app the same settings. The channel shows what this app has."
        )
        level = BROKEN if is_newer else WARNING
        yield Reason(level, "other_prefix", what, advice, case.to_channel)


def _waiting(outbox: Any) -> Iterator[Reason]:
    try:
        backlog = outbox.backlog()
    except Exception as error:  # each database driver has exceptions of its own
        what = f"The table of the outbox {outbox.name} cannot be read: {shown(getattr(error, 'orig', error))}"
        yield Reason(WARNING, "outbox_waiting", what, "Start the database, or create the table.")
        return
    if backlog.age >= WAITED:
        what = (
            f"The outbox {backlog.name} has {counted(backlog.waiting, 'event')} to publish; "
            f"the oldest waits for {backlog.age:.0f} s."
        )
        advice = "No relay publishes them: run `flask sse relay`, or pass relay=True to Outbox."
        yield Reason(BROKEN, "outbox_waiting", what, advice, {"kind": "outbox", "name": backlog.name})


def delivery(case: Case) -> Iterator[Reason]:
    """Yields a reason with the level ok for each stream of the channel that has got every event."""
    for stream in case.listening:
        if stream["lag"]["events"] == 0 and not stream["buffered"]:
            what = (
                f"The stream {stream['connection']} has got every event that this app published to it since "
                f"it opened: {counted(stream['events'], 'event')}."
            )
            yield Reason(OK, "delivered", what, "", _stream(stream))


def _stream(stream: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": "stream", "name": str(stream["connection"])}


CHECKS: Sequence[Callable[[Case], Iterator[Reason]]] = (
    refusals,
    connection,
    hearing,
    clients,
    history,
    publishing,
    delivery,
)
