"""Owns the one connection to an endpoint, and the way to it. Knows no report, and not when to leave somebody alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emitter.errors import ConnectError
from emitter.transmit.opening import Opening
from emitter.transmit.tls import TlsClient

if TYPE_CHECKING:
    import ssl

    from emitter.clocks import Clocks
    from emitter.endpoint import Endpoint
    from emitter.transmit.connection import Connection

__all__ = ["Link"]


class Link:
    """The connection that is open, or the one that is being opened, or neither.

    Args:
        endpoint: Where to.
        ssl_context: Whom TLS trusts; `None`: the operating system's trust store.
        clocks: Both clocks; deadlines are on the monotonic one.

    Attributes:
        connection: The open one; it may have ended.
        opening: What is under way: perhaps in a thread of its own, perhaps cut short by a budget.
        opened: How many connections were opened so far.
    """

    def __init__(self, endpoint: Endpoint, ssl_context: ssl.SSLContext | None, clocks: Clocks) -> None:
        self._endpoint = endpoint
        self._clocks = clocks
        self._tls = TlsClient(endpoint.host, endpoint.port, ssl_context) if endpoint.secure else None
        self._begin()

    def _begin(self) -> None:
        self.connection: Connection | None = None
        self.opening: Opening | None = None
        self.opened = 0

    def restart(self) -> None:
        """Begin anew, in a forked child, and leave what was inherited untouched."""
        inherited = self.connection, self.opening
        if self._tls is not None:
            self._tls.forget()
        self._begin()
        for each in inherited:
            if each is not None:
                each.disown()

    def prepare(self) -> None:
        """Read the trust store, which takes longer than any budget, if the endpoint is https.

        Raises:
            TlsError: It cannot be read.
        """
        if self._tls is not None:
            self._tls.prepare()

    def go_ahead(self, *, anew: bool) -> None:
        """Go on opening in a thread, while nobody waits.

        Args:
            anew: Whether to begin, if nothing is under way or what is has died.
        """
        if self.opening is not None and (self.opening.over or self.opening.stale):
            self.abandon()
        if self.opening is None and anew:
            self.opening = self._new()
        if self.opening is not None:
            self.opening.go_ahead()

    def come_back(self) -> None:
        """Take the opening out of its thread, and the connection out of the opening if it is open by now."""
        if self.opening is not None:
            connection = self.opening.come_back()
            if connection is not None:
                self.connection = connection
                self.opening = None
                self.opened += 1

    def abandon(self) -> None:
        """Give up what is under way."""
        if self.opening is not None:
            self.opening.abandon()
            self.opening = None

    async def open(self, deadline: float) -> Connection:
        """Open a connection, going on with what an earlier budget cut short.

        Raises:
            ConnectError: It cannot be opened; or not in time, and then it is `unfinished`.
        """
        opening = self.opening
        if opening is not None:
            try:
                return await self.finish(opening, self._clocks.monotonic() if opening.stale else deadline)
            except ConnectError as error:
                if error.unfinished and not opening.stale:
                    raise
            opening.abandon()  # it died while nobody looked, in a freeze for one: a new one says more
        self.opening = self._new()
        return await self.finish(self.opening, deadline)

    async def finish(self, opening: Opening, deadline: float) -> Connection:
        """Go on with what is under way. Raises as `open` does."""
        try:
            connection = self.connection = await opening.finish(deadline)
        finally:
            if opening.over:  # after the connection has its place: a fork in between finds the one or the other
                self.opening = None
        self.opened += 1
        return connection

    def _new(self) -> Opening:
        return Opening(self._endpoint.host, self._endpoint.port, tls=self._tls, clocks=self._clocks)
