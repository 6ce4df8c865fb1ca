"""`flask sse …`: the command line, one module or folder for each command.

Each module of this package that has a function `register(group, push)` adds one command. To add a
command, add such a module. `common.Push` lists the parts of the blueprint that a command may use.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import click

from . import uncaught
from .common import Push


def add_commands(group: click.Group, push: Push) -> None:
    """Adds every command of this package to `group`."""
    uncaught.shorten()
    for found in iter_modules(__path__):
        register = getattr(import_module(f"{__name__}.{found.name}"), "register", None)
        if register is not None:
            register(group, push)
