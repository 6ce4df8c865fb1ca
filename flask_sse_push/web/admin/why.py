"""Why did a user get nothing? Runs all checks over all workers, and says which reason comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...brokers.announcer import DEFAULT_CHANNEL
from ...errors import BrokerUnavailable
from ...protocol.channel import is_channel
from ..refusal import bad_request
from . import channels, checks, rights, streams
from .checks import BROKEN, OK, WARNING, Case, Reason
from .visit import Visit, shown

#: At most how many streams of the user are examined.
STREAMS = 20
#: The names of the reasons, in the order in which they explain that a user got nothing: if a user may not
#: listen, it does not matter that the user is not connected.
ORDER = (
    "unknown_user",
    "not_authorized",
    "rule_failed",
    "refused",
    "worker_deaf",
    "broker_not_shared",
    "broker_unavailable",
    "not_connected",
    "not_listening",
    "other_prefix",
    "outbox_waiting",
    "slow_client",
    "history_gone",
    "late",
    "nothing_published",
    "catching_up",
    "not_checked",
    "other_worker_silent",
    "delivered",
)


def answered(visit: Visit) -> dict[str, Any]:
    """Returns the findings about a user and a channel, the main reason first.

    :raises Refused: 400, if neither a user nor a channel nor an address is given.
    """
    case = _case(visit)
    found = sorted(_findings(case, visit), key=_rank)
    return {
        "user": shown(case.user),
        "channel": case.channel,
        "reason": next((each.name for each in found if each.level != OK), None),
        "findings": [each._asdict() for each in found],
        "streams": case.streams,
        "missing": case.missing,
    }


def _case(visit: Visit) -> Case:
    user, address = visit.text("user"), visit.text("address")
    if not (user or address or visit.text("channel")):
        raise bad_request("give a user, a channel or an address")
    asked = visit.channel("channel") if visit.text("channel") else f"user:{user}" if user else None
    if asked is not None and not is_channel(asked):
        raise bad_request("the user has no channel of their own: give a channel")
    services = visit.services
    details = {"user": user, "address": address, "channel": asked, "limit": STREAMS, "full": True}
    wanted = None if user or address else asked
    answers = services.streaming.worker_queries.ask(streams.LIST, details, channel=wanted, user_id=user)
    page = streams.merged(answers, STREAMS)
    channel = asked or _first_channel(page["streams"])
    broker, problem, kept = services.publishing.broker, "", channels.NOTHING
    found = [{**each, "lag": streams.UNKNOWN} for each in page["streams"]]
    try:
        kept = channels.kept(broker, channel)
        found = [streams.with_lag(broker, each) for each in found]
    except BrokerUnavailable as error:  # the other checks may say why
        problem = str(error)
    states = [each["worker"] for each in answers.found if isinstance(each.get("worker"), dict)]
    refusals = [refused for each in answers.found for refused in each.get("refusals", ())]
    total, missing = page["total"], answers.missing
    return Case(services, user, address, channel, found, total, states, missing, kept, problem, refusals)


def _first_channel(streams: Sequence[Mapping[str, Any]]) -> str:
    """Returns a channel of the newest stream, for a question that names only the address of the streams."""
    names = (name for each in streams for name in each["channels"])
    return next(names, DEFAULT_CHANNEL)


def _findings(case: Case, visit: Visit) -> Iterator[Reason]:
    if case.user:
        policy, is_connected = visit.endpoint.policy, case.total > 0
        load = policy.loader or rights.plain_loader(visit.identity.user)
        yield from rights.examined(policy, load, case.user, case.channel, is_connected=is_connected)
    for check in checks.CHECKS:
        yield from check(case)


def _rank(found: Reason) -> tuple[int, int]:
    return (BROKEN, WARNING, OK).index(found.level), ORDER.index(found.name)
