"""The functions that an app has registered with the blueprint's decorators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask import Request

from .flask_login import Loader

#: The type of the function given to `@sse.authorize`. It returns whether a user may listen to a channel.
Authorize = Callable[[Any, str], bool]


@dataclass
class Hooks:
    """The functions that the app has registered, such as `authorize` with the decorator `@sse.authorize`."""

    identify: list[Callable[[Request], Any]] = field(default_factory=list)
    authorize: Authorize | None = None
    load_user: Loader | None = None
    user_id: Callable[[Any], object] | None = None
    authorize_publish: Callable[[Any, str], bool] | None = None
    authorize_admin: Callable[[Any], bool] | None = None
