"""HTTP on the ledger's Unix sockets: uvicorn's protocol, with appends answered without a task, a scope or a routing table.

The peer's uid stands where other doors have an address. Everything that is not a plain `POST /v1/entries` goes the usual way.
Who sends a request before the last append was answered (pipelining) has the connection closed after that answer, which
RFC 9112 §9.3.2 has clients expect. Requests are bounded in size and time; nothing is answered with a receipt that the log did not
give.

No header is parsed here. But a client sends the same ones again and again, so what the parser said of a head (that it is a plain
append with a body of so many bytes) is remembered, and holds when the same bytes come again between two messages. A request that
arrives whole with such a head is not parsed once more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from folkmoot_core.errors import FolkmootError, LimitReached
from folkmoot_runtime import web
from folkmoot_runtime.ledger import appends
from folkmoot_runtime.ledger.waiting import Admission

log = logging.getLogger(__name__)
PEER = "unix-peer"  # host part of the ASGI client address; on this door no address comes from the network
MAX_HEAD = 512  # bytes of a request before its body that are worth remembering
MAX_HEADS = 1024  # that are remembered: one for each length of a body
LONGEST_HEAD = 64 << 10  # bytes; ours have some hundreds
REQUEST_SECONDS = 60.0  # from the first bytes of a request that does not come at once to its last
_UCRED = struct.Struct("3i")
_HEAD_ENDS = b"\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"

Begin = Callable[[bytes, int], tuple[Admission, bool]]
"""Queues the entries of a body for the peer with this uid; raises `FolkmootError`."""


class PeerProtocol(HttpToolsProtocol):
    """HTTP over a Unix socket, with the peer's uid as client address."""

    begin: Begin | None = None
    heads: ClassVar[dict[bytes, int]] = {}  # of plain appends, and how long a body they announce
    _body: bytearray | None = None  # of an append that is being read
    _whole = b""  # what arrived, if it began between two messages
    _reading = False  # the parser is inside a message
    _answering = False
    _last = False  # nothing is read any more
    _in_head = False
    _head = 0  # bytes of a head that is not complete
    _patience: asyncio.TimerHandle | None = None
    request_seconds = REQUEST_SECONDS
    _used = False  # since the timer of an idle connection began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        self.client = (PEER, uid)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_patience()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it
        """A client that says that it sends no more still gets its receipt; True keeps the way to it open."""
        self._last = self._last or self._answering
        return self._answering

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        self._whole = b""
        if not (self._reading or self._answering) and self._idle():
            end = data.find(_HEAD_ENDS, 0, MAX_HEAD) + len(_HEAD_ENDS)
            if len(data) - end == self.heads.get(data[:end]) and self.timeout_keep_alive_task is not None:
                self._used = True
                self._take(data[end:])
                return
            self._whole = data
        super().data_received(data)
        if not self._reading:
            self._unset_patience()
            return
        if self._patience is None:
            self._patience = self.loop.call_later(self.request_seconds, self._too_slow)
        self._head += len(data) if self._in_head else 0
        if self._head > LONGEST_HEAD and not self._last:
            self._give_up(LimitReached(f"the head of a request is larger than {LONGEST_HEAD} bytes", reason="HeadTooLarge"))

    def _unset_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        if not self._last:
            self._give_up(LimitReached(f"a request was not complete within {self.request_seconds:g} s", reason="RequestTooSlow"))

    def _give_up(self, error: LimitReached) -> None:
        """Read no more. An answer that is under way is given; where an application answers, it loses its client."""
        self._last = True
        self._body = None
        if self._answering:
            return
        if self._idle():
            self._refuse(error)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Behind an append that waits for its receipt, nonsense is not read: the receipt is what is owed."""
        if self._answering:
            self._last = True
        elif not self._last:
            self._last = True
            super().send_400_response(msg)

    def _should_upgrade_to_ws(self) -> bool:
        """No other protocol is spoken here, whatever is installed: who asks for one is answered in this one."""
        return False

    def _remember(self, body: bytes) -> None:
        """The parser said that all that arrived is one plain append with this body: so its head says how long that is."""
        length = len(self._whole) - len(body)
        if 0 < length <= MAX_HEAD and self._whole.find(_HEAD_ENDS) == length - len(_HEAD_ENDS):  # so the body was not chunked
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[self._whole[:length]] = len(body)

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection is closed; one whose requests did not touch the timer is not idle."""
        if self._answering or self._used:
            self._used = False
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        self._reading = self._in_head = True
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._answering or self._last:
            self._last = True
        elif (
            self.begin is not None
            and self.url == b"/v1/entries"
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and self._idle()
        ):
            self._body = bytearray()
        else:
            super().on_headers_complete()

    def _idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        return cycle is None or cycle.response_complete

    def on_body(self, body: bytes) -> None:
        if self._last:
            return
        if self._body is None:
            super().on_body(body)
            return
        self._body += body
        if len(self._body) > web.MAX_BODY:
            self._body = None
            self._last = True
            self._refuse(LimitReached(f"request body is larger than {web.MAX_BODY} bytes", reason="BodyTooLarge"))

    def on_message_complete(self) -> None:
        self._reading = False
        if self._last:
            return
        if self._body is None:
            super().on_message_complete()
            return
        body, self._body = bytes(self._body), None
        self._remember(body)
        self._take(body)

    def _take(self, body: bytes) -> None:
        """An append."""
        assert self.begin is not None  # noqa: S101 - it was there when the headers were complete
        assert self.client is not None  # noqa: S101 - connection_made set it
        try:
            admission, single = self.begin(body, self.client[1])
        except FolkmootError as error:
            self._refuse(error)
        except Exception:
            # The edge of the process: uvicorn's own protocol answers like this when an application fails.
            log.exception("append failed")
            self._refuse(FolkmootError("the ledger failed to take this request", reason="InternalError"))
        else:
            self._answering = True
            if not admission.then(lambda: self._settled(admission, single)):
                self._settled(admission, single)

    def _settled(self, admission: Admission, single: bool) -> None:
        if (error := admission.error) is not None:
            self._refuse(error)
        elif self._last or not self._used:
            self._answer(200, "application/json", appends.answer(admission, single))
        else:
            body = appends.answer(admission, single)
            self._answering = False
            self.server_state.total_requests += 1
            if not self.transport.is_closing():
                self.transport.write(_OK % (len(body), body))

    def _refuse(self, error: FolkmootError) -> None:
        status, extra, body = web.problem_document(error)
        self._answer(status, "application/problem+json", body, extra)

    def _answer(self, status: int, media: str, body: bytes, extra: dict[str, str] | None = None) -> None:
        self._answering = False
        if self.transport.is_closing():
            return
        lines = [f"HTTP/1.1 {status} {web.phrase(status)}\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in (extra or {}).items()]
        lines += ["connection: close\r\n\r\n" if self._last else "\r\n"]
        self.transport.write("".join(lines).encode() + body)
        if self._last:
            self.transport.close()
        else:
            self.on_response_complete()

    def shutdown(self) -> None:
        """The server stops: an append is answered first."""
        if self._answering:
            self._last = True
        else:
            super().shutdown()


def protocol(begin: Begin) -> type[PeerProtocol]:
    """The protocol of one socket."""

    class Appending(PeerProtocol):
        heads: ClassVar[dict[bytes, int]] = {}

    Appending.begin = staticmethod(begin)
    return Appending
