"""`flask sse …`: the command line, one module or folder for each command.

Each module here that has a function `register(group, push)` adds its command to the group. To add a
command, add a module. The commands know the blueprint only as `common.Push`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import click

from .common import Push


def add_commands(group: click.Group, push: Push) -> None:
    """Adds every command of this package to `group`."""
    for found in iter_modules(__path__):
        register = getattr(import_module(f"{__name__}.{found.name}"), "register", None)
        if register is not None:
            register(group, push)
