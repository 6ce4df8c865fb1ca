"""Says why a URL cannot be opened."""

from __future__ import annotations

import ssl

from . import network
from .exchange import Target
from .finding import Finding, broken
from .hosts import fault_at

WHY = "no browser can reach it either"


def is_url(target: Target) -> bool:
    """Whether the URL has a scheme and a host that the doctor can open."""
    return target.parts.scheme in ("http", "https") and bool(target.parts.hostname)


def examine_url(target: Target, error: BaseException) -> Finding:
    """Returns the finding about a URL that could not be opened. Blocks for some seconds.

    :param error: what the attempt raised.
    """
    if not is_url(target) or (isinstance(error, ValueError) and not isinstance(error, ssl.SSLError)):
        return _fault(target, str(error), "pass --url https://HOST/stream, with only ASCII characters in it")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate(target, error)
    found = fault_at(target.parts.hostname or "", target.port, "--url")
    if isinstance(found, str):
        what, advice = found.split("\n")
        return _fault(target, what, advice)
    if target.parts.scheme == "https" and network.answer(found, b"GET / HTTP/1.0\r\n\r\n")[:5] == b"HTTP/":
        return _fault(
            target,
            f"the server at {found.text} speaks HTTP without TLS",
            "begin the URL with http://, or let the proxy do TLS at this port (nginx: `listen 443 ssl;`)",
        )
    if target.parts.scheme == "http" and network.speaks_tls(found, target.parts.hostname or ""):
        return _fault(
            target, f"the server at {found.text} speaks TLS", "begin the URL with https:// instead of http://"
        )
    return _fault(
        target,
        f"{type(error).__name__}: {error}",
        "check that gunicorn and the proxy run, and that an HTTP server listens at this port",
    )


def _fault(target: Target, what: str, advice: str) -> Finding:
    return broken("stream", f"{target.url} cannot be reached: {what}", WHY, advice)


def _certificate(target: Target, error: ssl.SSLCertVerificationError) -> Finding:
    problem = error.verify_message
    if "expired" in problem:
        advice = "renew the certificate (certbot renew), and reload the proxy"
    elif "match" in problem or "mismatch" in problem.lower():
        advice = f"let the certificate name {target.parts.hostname}, or use a host that it names in --url"
    else:
        advice = (
            "let the server send the whole chain (nginx: fullchain.pem in ssl_certificate); for a "
            "certificate authority of your own, pass its certificate as --cacert FILE"
        )
    return broken(
        "certificate",
        f"the certificate of {target.parts.hostname}:{target.port} is not trusted: {problem}",
        "browsers refuse the connection too, unless they know the certificate authority",
        advice,
    )
