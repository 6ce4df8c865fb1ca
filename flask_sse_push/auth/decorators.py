"""The decorators with which an app registers functions about its users: `@sse.authorize` and others."""

from __future__ import annotations

from typing import TypeVar

from .hooks import Hooks

F = TypeVar("F")


class Decorators:
    """The decorators of a blueprint. Each decorator says when this package calls the function."""

    _hooks: Hooks

    def authorize(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool`, which decides who may listen to a channel.

        Public channels and a user's own channel `user:<id>` need no permission. Without such a function, all
        other channels are forbidden. If several functions are registered, only the last is used.

        The function is called in the request that opens a stream. While the stream is open, the function is
        called again from time to time, outside any request, in an app context. So the function must use its
        argument `user` (None for a visitor without a user), never `request` or `current_user`. The function
        may block. If it raises an exception, the request fails. If it raises three times in a row for an open
        stream, this stream is closed, and its client connects again.
        """
        self._hooks.authorize = allowed  # type: ignore[assignment]
        return allowed

    def identify(self, who: F) -> F:
        """Registers `who(request) -> user | Identity | None`, which finds the user of a request.

        If several functions are registered, the first result that is not None decides. A user is any object.
        `user_id` says which id the user has. If no function is registered, the user is flask-login's
        `current_user`.
        """
        self._hooks.identify.append(who)  # type: ignore[arg-type]
        return who

    def load_user(self, load: F) -> F:
        """Registers `load(user_id) -> user | None`, which loads the user of a ticket or of an open stream.

        The id is a string. The result None means that the user does not exist any more. The function is
        called in an app context, also outside any request, and may block. Without such a function,
        flask-login's `user_loader` loads the users that signed in with flask-login, and the users of tickets.
        """
        self._hooks.load_user = load  # type: ignore[assignment]
        return load

    def user_id(self, id_of: F) -> F:
        """Registers `id_of(user) -> id`, which returns the id of a user object.

        Other users see the id in presence, and `send_to_user`, `revoke` and the channel `user:<id>` use it.
        Without such a function, the id is the attribute `id`, else the result of flask-login's `get_id()`,
        else the object as text. If `get_id()` returns a secret token, users need an attribute `id` or this
        function.
        """
        self._hooks.user_id = id_of  # type: ignore[assignment]
        return id_of

    def authorize_publish(self, allowed: F) -> F:
        """Registers `allowed(user, channel) -> bool`, which decides who may use `POST <prefix>/publish`.

        Without such a function, the route answers 404.
        """
        self._hooks.authorize_publish = allowed  # type: ignore[assignment]
        return allowed

    def authorize_admin(self, allowed: F) -> F:
        """Registers `allowed(user) -> bool`, which decides who is an admin.

        Admins may use the admin page `<prefix>/admin`, `/stats`, `/metrics` and `/health`. Without such a
        function, these routes answer 404. The function is called during each request, so it may also use
        `request`, for example to check the token of a program that reads the metrics. While an admin page is
        open, the function is called again from time to time, outside any request, with the page's user. If
        the function then raises an exception three times in a row, the page connects again.
        """
        self._hooks.authorize_admin = allowed  # type: ignore[assignment]
        return allowed
