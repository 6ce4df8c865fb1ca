"""Lets a command that fails because of a wrong set-up print one line in place of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from ..errors import BrokerUnavailable, ConfigError
from ..protocol.printable import printable


def shorten() -> None:
    """Makes this process print one line if a `ConfigError` or `BrokerUnavailable` ends it.

    Does nothing outside commands, such as `flask …`. Called when an app makes its blueprint, so it also works
    for errors that the app raises while Flask imports it. The exit status stays 1.
    """
    in_command = click.get_current_context(silent=True) is not None
    if in_command and getattr(sys.excepthook, "func", None) is not _show:
        sys.excepthook = partial(_show, sys.excepthook)


def _show(previous: Callable[..., Any], kind: type[BaseException], error: BaseException, where: Any) -> None:
    """A `sys.excepthook`. Leaves all other errors to the hook that was set before."""
    if isinstance(error, (ConfigError, BrokerUnavailable)):
        click.echo(f"Error: {printable(str(error))}", err=True)
    else:
        previous(kind, error, where)
