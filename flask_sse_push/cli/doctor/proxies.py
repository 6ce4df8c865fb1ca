"""Finds the proxy that an answer came through, and the directives of this proxy that mend a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Proxy(NamedTuple):
    """A proxy, how its headers show it, and what to write into its configuration.

    `sign` finds the proxy in the headers Server, Via and the names of all headers. The other fields answer
    one fault each: the proxy buffers, compresses, closes silent streams, or speaks HTTP/1.0 to the app.
    """

    name: str
    sign: str
    buffering: str
    compression: str
    timeout: str
    protocol: str = ""


#: All proxies that name themselves. A CDN comes before the server behind it.
PROXIES = (
    Proxy(
        "Cloudflare",
        r"cloudflare|cf-ray",
        "Cloudflare: add a cache rule that bypasses the cache for the stream's path, and use no Worker that "
        "reads the whole body",
        "Cloudflare: add a compression rule that disables compression for the stream's path",
        "Cloudflare: it closes after 100 seconds of silence; keep SSE_PUSH_HEARTBEAT below that",
    ),
    Proxy(
        "CloudFront",
        r"cloudfront|x-amz-cf-id",
        "CloudFront: use the cache policy CachingDisabled for the stream's path",
        "CloudFront: switch `Compress objects automatically` off for the stream's path",
        "CloudFront: raise the origin's response timeout (30 seconds), or lower SSE_PUSH_HEARTBEAT",
    ),
    Proxy(
        "Fastly or Varnish",
        r"varnish|fastly|x-served-by",
        "Varnish: `set beresp.do_stream = true;` and `return (pass);` for the stream's path",
        "Varnish: `set beresp.do_gzip = false;` for the stream's path",
        "Varnish: raise `between_bytes_timeout`, or lower SSE_PUSH_HEARTBEAT",
    ),
    Proxy(
        "nginx",
        r"nginx|openresty|tengine",
        "nginx: set `proxy_buffering off;` in the location of the stream, and remove `proxy_ignore_headers "
        "X-Accel-Buffering;` if it is there",
        "nginx: set `gzip off;` in the location of the stream, or take text/event-stream out of `gzip_types`",
        "nginx: set `proxy_read_timeout 60s;` in the location of the stream, or lower SSE_PUSH_HEARTBEAT",
        'nginx: set `proxy_http_version 1.1;` and `proxy_set_header Connection "";` in the location',
    ),
    Proxy(
        "Apache",
        r"apache",
        "Apache: add `flushpackets=on` to the ProxyPass line of the stream",
        "Apache: set `SetEnvIf Request_URI ^/stream no-gzip` (mod_deflate), with the stream's path",
        "Apache: add `timeout=60` to the ProxyPass line of the stream, or lower SSE_PUSH_HEARTBEAT",
        "Apache: remove `SetEnv force-proxy-request-1.0`",
    ),
    Proxy(
        "Caddy",
        r"caddy",
        "Caddy: set `flush_interval -1` in reverse_proxy",
        "Caddy: leave the stream out of `encode` with a matcher, such as `@pages not path /stream*`",
        "Caddy: raise `read_timeout` in the transport of reverse_proxy, or lower SSE_PUSH_HEARTBEAT",
        "Caddy: set `versions 1.1` in the transport of reverse_proxy",
    ),
    Proxy(
        "Envoy",
        r"envoy",
        "Envoy: remove the buffer filter (envoy.filters.http.buffer) from the stream's route",
        "Envoy: disable the compressor filter for the stream's route",
        "Envoy: set `timeout: 0s` and a longer `idle_timeout` on the stream's route",
    ),
    Proxy(
        "an AWS load balancer",
        r"awselb",
        "AWS: a load balancer does not buffer; look at the server behind it",
        "AWS: a load balancer does not compress; look at the server behind it",
        "AWS: raise the idle timeout of the load balancer (60 seconds), or lower SSE_PUSH_HEARTBEAT",
    ),
    Proxy(
        "IIS",
        r"microsoft-iis",
        'IIS: set responseBufferLimit="0" in Application Request Routing',
        "IIS: disable dynamic compression for text/event-stream",
        "IIS: raise the proxy's time-out in Application Request Routing, or lower SSE_PUSH_HEARTBEAT",
    ),
    Proxy(
        "Squid",
        r"squid",
        "Squid: it passes streams on; look for an ICAP or eCAP adapter that reads whole bodies",
        "Squid: remove the eCAP adapter that compresses",
        "Squid: raise `read_timeout`, or lower SSE_PUSH_HEARTBEAT",
    ),
    Proxy(
        "LiteSpeed",
        r"litespeed",
        "LiteSpeed: it buffers unless the answer has X-LiteSpeed-Cache-Control: no-cache; bypass its cache",
        "LiteSpeed: switch compression off for text/event-stream",
        "LiteSpeed: raise the connection timeout, or lower SSE_PUSH_HEARTBEAT",
    ),
)
#: What to do about a proxy that does not name itself, such as HAProxy, Traefik and most load balancers.
UNKNOWN = Proxy(
    "a proxy that does not name itself",
    "",
    "HAProxy: set `option http-no-delay`; Traefik: remove the buffering middleware; nginx: "
    "`proxy_buffering off;`; Apache: `flushpackets=on`; Caddy: `flush_interval -1`. Without a proxy: look "
    "for a WSGI middleware that collects the body",
    "HAProxy: take text/event-stream out of `compression type`; Traefik: exclude it from the compress "
    "middleware; nginx: `gzip off;`. Without a proxy: exclude text/event-stream in the WSGI middleware",
    "HAProxy: set `timeout server 60s` and `timeout client 60s`; Traefik: raise the entry point's "
    "idleTimeout; nginx: `proxy_read_timeout 60s;`; or lower SSE_PUSH_HEARTBEAT",
    'nginx: `proxy_http_version 1.1;` and `proxy_set_header Connection "";`; HAProxy: remove `option '
    "http-server-close` and old `option httpclose`",
)


def find_proxy(headers: Mapping[str, str]) -> Proxy:
    """Returns the proxy that an answer came through, as far as its headers show.

    :param headers: the names are in lower case.
    """
    text = " ".join([headers.get("server", ""), headers.get("via", ""), *headers]).lower()
    return next((each for each in PROXIES if re.search(each.sign, text)), UNKNOWN)
