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


def row(case: Case) -> str:
    """Returns the row of a case in a table of docs/doctor.md."""
    remedy = case.remedy.replace("|", r"\|")  # a bare | would begin another cell
    return f"| {case.setup} | `{case.found}` | {remedy} |"


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
        "the same SSE_PUSH_CHANNELS, SSE_PUSH_HISTORY_SIZE, SSE_PUSH_HISTORY_TTL",
    ),
    "other-size": Case(
        "the publishers have a larger SSE_PUSH_HISTORY_SIZE",
        "warning history of publishers",
        "the same SSE_PUSH_CHANNELS, SSE_PUSH_HISTORY_SIZE, SSE_PUSH_HISTORY_TTL",
    ),
    "other-policies": Case(
        "the publishers have other policies in SSE_PUSH_CHANNELS",
        "warning history of publishers",
        "the same SSE_PUSH_CHANNELS, SSE_PUSH_HISTORY_SIZE, SSE_PUSH_HISTORY_TTL",
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
        "Redis is too old, or `rename-command` hides a command", "broken broker", "Redis 5.0 or newer"
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

#: The way from the doctor to the app: URLs, proxies, servers, each by the name of its test.
WEB = {
    "web-nobody-listens": Case(
        "gunicorn does not run, or the port is wrong",
        "broken stream",
        "start the server, or correct host and port",
    ),
    "web-other-ip-version": Case(
        "the URL has `[::1]`, and gunicorn listens on 127.0.0.1 only",
        "broken stream",
        "write 127.0.0.1 as the host",
    ),
    "web-no-such-host": Case("the URL's host has no address", "broken stream", "correct the host in --url"),
    "no-url": Case("`--url` without http:// or https://", "broken stream", "pass --url https://HOST/stream"),
    "no-http": Case(
        "another server than HTTP listens at the port", "broken stream", "an HTTP server listens"
    ),
    "https-to-plain": Case(
        "`https://`, and the server speaks without TLS", "broken stream", "begin the URL with http://"
    ),
    "http-to-https": Case("`http://` to a port with TLS", "broken stream", "begin the URL with https://"),
    "web-untrusted-certificate": Case(
        "the certificate is self-signed, or its chain is incomplete", "broken certificate", "--cacert FILE"
    ),
    "certificate-of-other-name": Case(
        "the certificate names another host", "broken certificate", "let the certificate name 127.0.0.1"
    ),
    "redirect-to-https": Case(
        "a proxy redirects http to https", "broken stream", "use the address with https://"
    ),
    "redirect-slash": Case("a redirect adds a slash", "broken stream", "mind the last slash"),
    "redirect-host": Case("a redirect to another host", "broken stream", "use the host www.example.com"),
    "redirect-login": Case(
        "a redirect to a page to sign in", "warning stream", "--header 'Cookie: session=…'"
    ),
    "html-page": Case("a proxy answers with its own page", "broken stream", "nginx: try_files"),
    "login-page": Case("a page to sign in instead of the stream", "broken stream", "--token TOKEN"),
    "app-refuses": Case(
        "the app does not let you listen to the channel (401, 403)",
        "warning stream",
        "--header 'Cookie: session=…'",
    ),
    "proxy-refuses": Case("a proxy answers 401 or 403", "warning stream", "--header 'Cookie: session=…'"),
    "wrong-path": Case("the path is wrong (404)", "broken stream", "this app serves its streams at /stream"),
    "stripped-path": Case("a proxy changes the path", "broken stream", "without a slash at its end"),
    "rate-limit": Case(
        "a proxy limits requests (429)", "warning stream", "wait 7 seconds; raise the limit of nginx"
    ),
    "error-500": Case(
        "the app raises an exception (500)", "broken stream", "read the traceback in gunicorn's log"
    ),
    "bad-gateway": Case(
        "the proxy does not reach gunicorn (502)", "broken stream", "start gunicorn, and compare"
    ),
    "unavailable": Case(
        "the proxy has no server to ask (503)", "broken stream", "nginx has no server to ask"
    ),
    "gateway-timeout": Case(
        "the workers are blocked, and the proxy gives up (504)",
        "broken stream",
        "its workers are busy or blocked",
    ),
    "nginx-buffers": Case(
        "nginx buffers (`proxy_ignore_headers X-Accel-Buffering`, without `proxy_http_version 1.1`)",
        "broken buffering",
        "`proxy_buffering off;`",
    ),
    "apache-buffers": Case("Apache buffers", "broken buffering", "flushpackets=on"),
    "caddy-buffers": Case("Caddy buffers", "broken buffering", "flush_interval -1"),
    "cloudflare-buffers": Case("Cloudflare buffers", "broken buffering", "bypasses the cache"),
    "varnish-buffers": Case("Varnish or Fastly buffers", "broken buffering", "beresp.do_stream = true"),
    "unknown-buffers": Case(
        "HAProxy or a proxy without a name buffers", "broken buffering", "HAProxy: set `option http-no-delay`"
    ),
    "holds-back-later": Case(
        "a proxy passes the first bytes and holds back what follows", "broken buffering", "HAProxy: set"
    ),
    "nginx-compresses": Case("nginx compresses the stream", "broken compression", "`gzip off;`"),
    "nginx-timeout": Case(
        "`proxy_read_timeout` is shorter than the heartbeat", "broken silence", "`proxy_read_timeout 60s;`"
    ),
    "nginx-http-1.0": Case(
        "nginx without `proxy_http_version 1.1`", "warning HTTP/1.0", "`proxy_http_version 1.1;`"
    ),
    "nginx-drops-cursor": Case(
        "a proxy drops the header Last-Event-ID", "broken resuming", "forward the header Last-Event-ID"
    ),
    "ends-at-once": Case(
        "the response ends before its first event", "broken stream", "read the log of gunicorn"
    ),
    "blocked-server": Case(
        "the server accepts connections and never answers", "broken stream", "workers busy"
    ),
    "sync-worker": Case("gunicorn with `sync` workers", "broken worker class", "run gunicorn with -k gevent"),
    "thread-worker": Case(
        "gunicorn with `gthread` workers", "warning worker class", "run gunicorn with -k gevent"
    ),
    "few-connections": Case(
        "gunicorn with `--worker-connections 40`", "warning worker_connections", "leave worker_connections at"
    ),
    "one-thread": Case("`flask run --without-threads`", "broken worker class", "leave out --without-threads"),
    "memory-for-two": Case(
        "two workers and `memory://`", "broken broker", "set SSE_PUSH_BROKER_URL=redis://"
    ),
    "other-key": Case(
        "the app has another SECRET_KEY than the command",
        "warning running app",
        "give all workers the same SECRET_KEY",
    ),
    "other-settings": Case(
        "publishers have another SSE_PUSH_PREFIX or broker than the running app",
        "broken settings",
        "run commands and publishers with the environment of gunicorn",
    ),
    "other-policy": Case(
        "publishers have other settings than the running app",
        "warning settings",
        "run commands and publishers with the environment of gunicorn",
    ),
    "broker-down": Case(
        "the app runs, and Redis does not", "broken broker", "start the server, or correct host and port"
    ),
}

#: The app as `tests/integration/test_doctor_stream.py` and `tests/unit/cli/test_doctor.py` make it.
APP = {
    "app-without-broker": Case(
        "Redis does not answer the running app, and answers this command",
        "broken stream",
        "read gunicorn's log, and run `flask sse doctor` on the app's machine",
    ),
    "memory-does-not-resume": Case(
        "`memory://`, several workers, and no SECRET_KEY with which to ask the app",
        "broken resuming",
        "set SSE_PUSH_BROKER_URL=redis://",
    ),
    "no-gevent": Case(
        "`-k gevent`, and gevent is not installed", "broken worker class", "run `pip install gevent`"
    ),
}
