"""The faults that Redis' own error messages name, and what to do about each."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A fault that Redis' own error message names. `pattern` finds it in the message."""

    pattern: str
    what: str
    advice: str


#: The faults that Redis names, the more specific ones first.
KNOWN = (
    Known(
        "WRONGPASS|invalid username-password|invalid password",
        "Redis refuses the user or the password of SSE_PUSH_BROKER_URL",
        "correct user and password in the URL: redis://user:password@host:6379/0, with / # ? @ % in the "
        "password as %2F %23 %3F %40 %25",
    ),
    Known(
        "without any password configured|no password is set",
        "SSE_PUSH_BROKER_URL has a password, but this Redis requires none",
        "remove the password from the URL; or the URL names another server than you mean",
    ),
    Known(
        "NOAUTH|[Aa]uthentication required",
        "Redis requires a password, and SSE_PUSH_BROKER_URL has none",
        "put user and password into the URL: redis://user:password@host:6379/0",
    ),
    Known(
        "DB index|SELECT is not allowed",
        "this Redis has no database with the number that SSE_PUSH_BROKER_URL ends with",
        "end the URL with a lower number, such as /0, or raise `databases` in redis.conf",
    ),
    Known(
        "max number of clients",
        "Redis refuses the connection: `maxclients` connections are open",
        "raise `maxclients`, or find the clients with many connections: redis-cli CLIENT LIST",
    ),
    Known(
        "protected mode",
        "Redis runs in protected mode, so it accepts connections from its own machine only",
        "set a password (`requirepass`) or an ACL on the server, and put it into SSE_PUSH_BROKER_URL",
    ),
    Known(
        "BusyLoading|loading the dataset",
        "Redis is still loading its data from disk",
        "wait until redis-cli INFO persistence shows loading:0; the workers then go on by themselves",
    ),
    Known(
        "busy running a script",
        "Redis is busy with a script that takes too long, of this app or of another program",
        "find the script with redis-cli SLOWLOG GET, and end it with redis-cli SCRIPT KILL",
    ),
    Known(
        "cluster support disabled|This instance has cluster",
        "SSE_PUSH_BROKER_URL begins with redis+cluster://, but this Redis is not part of a cluster",
        "begin the URL with redis:// (rediss:// with TLS)",
    ),
    Known(
        "ClusterDown|CLUSTERDOWN|nobody owns slot|slot not served",
        "the cluster is down: some of its slots have no live node",
        "look at redis-cli --cluster check HOST:PORT, and start or replace the missing nodes",
    ),
    Known(
        "MovedError|MOVED|AskError|CROSSSLOT",
        "this Redis is a node of a cluster, and SSE_PUSH_BROKER_URL is for a single server",
        "begin the URL with redis+cluster:// (rediss+cluster:// with TLS)",
    ),
    Known(
        "[Cc]ertificate.verify.failed|CERTIFICATE_VERIFY_FAILED",
        "the TLS certificate of Redis is not trusted, or it is for another name",
        "add ?ssl_ca_certs=/path/to/ca.pem to the URL, and use the host's name as the certificate has it",
    ),
    Known(
        "they do not get what is published|subscribers do not get",
        "Redis takes commands, but subscribers do not get what is published",
        "connect to Redis directly: a proxy in front of it, such as twemproxy, does not pass pub/sub",
    ),
)
