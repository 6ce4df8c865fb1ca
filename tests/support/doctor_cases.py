"""The set-ups that `flask sse doctor` must judge, with its verdict and its remedy. docs/doctor.md shows them.

The tests `tests/e2e/test_doctor_*.py` make each set-up for real.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A broken set-up: what is wrong, the level and name of the one finding, and words of its remedy."""

    setup: str
    found: str
    remedy: str


#: Redis and its URL, each by the name of its test.
REDIS = {
    "nobody-listens": Case(
        "Redis does not run, or the port is wrong",
        "broken broker",
        "start the server, or correct host and port",
    ),
    "other-ip-version": Case(
        "the URL has `[::1]`, and Redis listens on 127.0.0.1 only",
        "broken broker",
        "write 127.0.0.1 as the host",
    ),
    "no-such-host": Case("the host's name has no address", "broken broker", "correct the host"),
    "no-redis": Case(
        "an HTTP server listens at the port", "broken broker", "correct host and port in SSE_PUSH_BROKER_URL"
    ),
    "tls-to-plain": Case(
        "`rediss://`, and Redis speaks without TLS", "broken broker", "begin the URL with redis://"
    ),
    "plain-to-tls": Case("`redis://`, and Redis speaks TLS", "broken broker", "begin the URL with rediss://"),
    "untrusted-certificate": Case(
        "nobody trusts the certificate of Redis", "broken broker", "add ?ssl_ca_certs=/path/to/ca.pem"
    ),
    "client-certificate": Case(
        "Redis demands a certificate from its clients", "broken broker", "add ?ssl_certfile=/path/client.pem"
    ),
    "no-password": Case(
        "Redis requires a password, and the URL has none",
        "broken broker",
        "put user and password into the URL",
    ),
    "wrong-password": Case("the password is wrong", "broken broker", "correct user and password in the URL"),
    "needless-password": Case(
        "the URL has a password, and Redis requires none", "broken broker", "remove the password from the URL"
    ),
    "no-such-database": Case(
        "the URL ends with /99, and Redis has 16 databases",
        "broken broker",
        "end the URL with a lower number",
    ),
    "other-database": Case(
        "the publishers use another database",
        "warning publishers",
        "the same SSE_PUSH_PREFIX and the same database",
    ),
    "other-prefix": Case(
        "the publishers use another SSE_PUSH_PREFIX",
        "warning publishers",
        "the same SSE_PUSH_PREFIX and the same database",
    ),
    "other-ttl": Case(
        "the publishers have another SSE_PUSH_HISTORY_TTL",
        "warning history of publishers",
        "the same SSE_PUSH_HISTORY_TTL and SSE_PUSH_HISTORY_SIZE",
    ),
    "other-size": Case(
        "the publishers have a larger SSE_PUSH_HISTORY_SIZE",
        "warning history of publishers",
        "the same SSE_PUSH_HISTORY_TTL and SSE_PUSH_HISTORY_SIZE",
    ),
    "too-few-replicas": Case(
        "`min-replicas-to-write` replicas are not connected",
        "broken broker",
        "too few replicas are connected",
    ),
    "out-of-memory": Case(
        "`maxmemory` is used up, with `noeviction`", "broken broker", "the server has used up its `maxmemory`"
    ),
    "disk-full": Case("Redis cannot save to its disk", "broken broker", "free space on its disk"),
    "replica": Case("the URL names a replica", "broken broker", "set SSE_PUSH_BROKER_URL to the primary"),
    "writable-replica": Case(
        "the URL names a replica with `replica-read-only no`",
        "warning role",
        "set SSE_PUSH_BROKER_URL to the primary",
    ),
    "maxclients-reached": Case("`maxclients` connections are open", "broken broker", "raise `maxclients`"),
    "maxclients-near": Case(
        "more than 90 % of `maxclients` are in use", "broken clients", "raise maxclients"
    ),
    "eviction": Case(
        "`maxmemory-policy allkeys-lru`", "broken eviction", "set maxmemory-policy to noeviction"
    ),
    "memory-near": Case("more than 90 % of `maxmemory` are in use", "warning eviction", "raise maxmemory"),
    "small-buffer": Case(
        "`client-output-buffer-limit pubsub` is small",
        "broken pub/sub buffer",
        "set client-output-buffer-limit 'pubsub 32mb 8mb 60'",
    ),
    "busy-script": Case("a script of another program runs for ever", "broken broker", "SCRIPT KILL"),
    "renamed-command": Case(
        "Redis is too old, or `rename-command` has hidden a command", "broken broker", "Redis 5.0 or newer"
    ),
    "clock-back": Case(
        "Redis' clock was set back", "warning clock of Redis", "run a time service on the machine of Redis"
    ),
    "acl-command": Case(
        "the ACL user may not use a command of the scripts", "broken rights", "ACL SETUSER app +rpush"
    ),
    "acl-dangerous": Case("the ACL user has `-@dangerous`", "broken rights", "ACL SETUSER app +info"),
    "acl-scripts": Case(
        "the ACL user may not run scripts", "broken rights", "ACL SETUSER app +evalsha +script|load"
    ),
    "acl-keys": Case("the ACL user may not use the keys", "broken rights", "ACL SETUSER app ~{sse:*}:*"),
    "acl-read-only": Case(
        "the ACL user may only read the keys (`%R~`)", "broken rights", "ACL SETUSER app ~{sse:*}:*"
    ),
    "acl-channels": Case(
        "the ACL user may not use pub/sub channels (`resetchannels`)", "broken rights", "&{sse:*}:*"
    ),
    "acl-subscribe": Case("the ACL user may not subscribe", "broken rights", "ACL SETUSER app +subscribe"),
    "acl-no-transactions": Case(
        "the ACL user may do hardly anything", "broken rights", "ACL SETUSER app +client|setname +del"
    ),
    "not-a-sentinel": Case(
        "`redis+sentinel://`, and the server is no sentinel", "broken broker", "name the sentinels in the URL"
    ),
    "no-sentinel": Case("no sentinel can be reached", "broken broker", "start the sentinels"),
    "wrong-service": Case(
        "the sentinels watch a service of another name", "broken broker", "redis+sentinel://HOST:26379/shop"
    ),
    "no-primary": Case(
        "the sentinels know no live primary (no quorum)", "broken broker", "SENTINEL CKQUORUM shop"
    ),
    "sentinel-password": Case("the sentinels require a password", "broken broker", "add ?sentinel_password="),
    "plain-url-to-sentinel": Case(
        "`redis://`, and a sentinel listens at the port", "broken broker", "set the URL to redis+sentinel://"
    ),
    "no-cluster": Case(
        "`redis+cluster://`, and Redis is no cluster", "broken broker", "begin the URL with redis://"
    ),
    "cluster-down": Case("slots of the cluster have no node", "broken broker", "redis-cli --cluster check"),
    "no-socket-file": Case("`unix://` with a wrong path", "broken broker", "correct the path"),
    "dead-socket": Case("`unix://`, and Redis does not run", "broken broker", "start Redis"),
}
