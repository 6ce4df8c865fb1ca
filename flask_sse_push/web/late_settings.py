"""Warns when an app changes a setting that this package has already read.

The app's config checks each change, so requests and events do not have to.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

from flask import Flask
from flask.config import Config

from ..config import KEY_PREFIX, REDIS_KEYS, Settings

logger = logging.getLogger(__name__)


class WatchedConfig(Config):
    """The config of an app whose settings have been read. Warns at most once about each setting."""

    settings_in_use: Settings
    warned_of: set[str]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._warn_if_late(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        for key in dict(*args, **kwargs):
            self._warn_if_late(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        value = super().setdefault(key, default)
        self._warn_if_late(key)
        return value

    def _warn_if_late(self, changed: str) -> None:
        """Warns if the key makes the settings differ from those in use.

        :raises ConfigError: if the new value is not valid.
        """
        if not (isinstance(changed, str) and changed.startswith((KEY_PREFIX, *REDIS_KEYS))):
            return
        wanted, used = Settings.load(self), self.settings_in_use
        names = [each.name for each in fields(used) if getattr(used, each.name) != getattr(wanted, each.name)]
        late = [key for key in map(Settings.key, names) if key not in self.warned_of]
        if late:
            self.warned_of.update(late)
            logger.warning(
                "%s was changed after flask_sse_push had read the settings, so the change has no effect: set "
                "it before the first request, event or stream; in a test, use in_memory(app, %s=…)",
                " and ".join(late),
                late[0].removeprefix(KEY_PREFIX).lower(),
            )


def watch(app: Flask, settings: Settings) -> None:
    """Makes the app's config warn of changed settings. Does nothing to a config of the app's own class.

    :param settings: the settings that this package has read.
    """
    config = app.config
    if type(config) is Config:
        config.__class__ = WatchedConfig
    if isinstance(config, WatchedConfig):
        config.settings_in_use, config.warned_of = settings, set()
