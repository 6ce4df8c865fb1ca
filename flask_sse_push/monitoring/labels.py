"""The values of the labels of counters, as far as they are known beforehand.

A counter with a label has no series for a value that it has never counted: a dashboard shows "No data", and
Prometheus does not see an increase from nothing to 1. So each process starts the series of the known values
with 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ErrorCode

#: Why streams end; see docs/operations.md.
REASONS = (
    "client",
    "drain",
    "slow",
    "stuck",
    "busy",
    "buffered",
    "done",
    "error",
    "closed",
    "disconnected",
    "logout",
    "revoked",
    "expired",
    "recheck",
)
#: The codes of refused requests. The other codes are for clients.
CODES = tuple(
    str(int(code))
    for code in ErrorCode
    if code not in (ErrorCode.CONNECTION_TIMEOUT, ErrorCode.CONNECTION_CLOSED)
)
#: The names of the signals. An app's receivers of them are callbacks.
SIGNALS = ("event-published", "history-lost", "stream-closed", "stream-opened")
#: What an app registers callbacks for.
CALLBACKS = (
    "app context",
    "authorize",
    "authorize_admin",
    "load_user",
    "log handler",
    "producer",
    *SIGNALS,
)
#: The threads that every worker with streams has. Further threads run only in some workers, and for a while.
THREADS = ("connections", "counts", "fetcher", "hub", "reader", "recheck", "reporter")
#: What browser clients report.
CLIENT_KINDS = ("opened", "lost", "silent", "refused", "errors")

#: The known values for each counter that has a label, by the name of the counter.
KNOWN: Mapping[str, Sequence[str]] = {
    "closed": REASONS,
    "refused": CODES,
    "callback_errors": CALLBACKS,
    "callbacks_dropped": SIGNALS,
    "thread_ends": THREADS,
    "client": CLIENT_KINDS,
}
