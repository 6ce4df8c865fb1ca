"""`Content-Encoding: gzip` for streams, with one deflate window for all that get the same bytes.

The streams of a group are sent the same text, so one compressor serves them all: each chunk is a run of raw
deflate blocks that ends at a byte (sync flush) and refers back to the chunks before it. Those references hold
for a stream that has had all these chunks and nothing else: it is *in step*. One that has just joined, or was
sent something of its own (a heartbeat, say), is *astray*: it gets every chunk compressed by itself, until the
shared compressor starts anew with a chunk that refers to nothing. It does so as soon as what was sent to
those astray has cost about what a new start costs.

A gzip file (RFC 1952) begins with a header and ends with the checksum and length of its text. A stream gets
the header first, and the end when it ends in good order; the checksum is put together from those of its own
parts and of the group's, which are kept once for all of its streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from .sink import Sink

#: A gzip member by deflate, without name, time and flags, made on an unknown system.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: An empty deflate block that is the last one.
FINAL = b"\x03\x00"
#: Shared compressors of one worker; groups beyond get each chunk compressed by itself.
MAX_WINDOWS = 100
#: How far back a shared compressor refers is 2 to this many bytes. With MEMORY it takes about 100 kB.
WINDOW_BITS = 13
MEMORY = 7
LEVEL = 6


def _compressor() -> zlib._Compress:
    return zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY)


@lru_cache(maxsize=4)
def block(frames: bytes) -> bytes:
    """`frames` compressed by themselves: any stream can take them at any time."""
    deflate = _compressor()
    return deflate.compress(frames) + deflate.flush(zlib.Z_SYNC_FLUSH)


class Tally:
    """Checksum and length of all text that went to a group."""

    __slots__ = ("crc", "size")

    def __init__(self) -> None:
        self.crc = 0
        self.size = 0

    def note(self, frames: bytes) -> None:
        """Adds what goes to all of the group now."""
        self.crc = zlib.crc32(frames, self.crc)
        self.size += len(frames)


class GzipStream:
    """The encoding of one stream: what its text adds up to, and whether it is in step with its group.

    Called by one thread at a time: that of its generator until it has joined a group, then under the hub's
    lock, in the order in which chunks are written.
    """

    __slots__ = ("_begun", "_cohort", "_crc", "_frozen", "_since", "_size", "astray", "whole")

    def __init__(self) -> None:
        self.astray = False
        self.whole = True  # whether the client was sent all that was noted: else no checksum is right
        self._begun = False
        self._frozen = False
        self._cohort: Cohort | None = None
        self._crc = 0  # of its text; while in a group without the group's part
        self._size = 0  # bytes of its text; while in a group without the group's part
        self._since = 0  # the group's size when it joined

    def own(self, frames: bytes) -> bytes:
        """`frames` for this stream alone."""
        cohort = self._cohort
        if cohort is not None:
            self.leave()
        if not self._frozen:
            self._crc = zlib.crc32(frames, self._crc)
            self._size += len(frames)
        if cohort is not None:
            self.join(cohort)
        return self._header() + block(frames)

    def join(self, cohort: Cohort) -> None:
        """From here on the stream gets what its group gets."""
        if self._frozen:
            return
        tally = cohort.tally
        self._cohort, self._since = cohort, tally.size
        self._crc ^= tally.crc  # see `leave`
        self.astray = False
        self.stray()

    def stray(self) -> None:
        """It is not in step any more."""
        if self._cohort is not None and not self.astray:
            self.astray = True
            self._cohort.astray += 1

    def leave(self) -> None:
        """From here on it does not: what came from the group counts as its own."""
        cohort, self._cohort = self._cohort, None
        if cohort is None:
            return
        # With S its text before, G the group's text before and B what both got since, crc(SB) is
        # shift(crc(S), |B|) ^ crc(B), and crc(B) is crc(GB) ^ shift(crc(G), |B|).
        both = cohort.tally.size - self._since
        self._crc = shift(self._crc, both) ^ cohort.tally.crc
        self._size += both
        if self.astray:
            cohort.astray -= 1

    def freeze(self) -> None:
        """The stream is ending: nothing but its last words will come."""
        if self._cohort is not None:
            self.leave()
            self._frozen = True

    def last(self, frame: bytes) -> bytes:
        """`frame` as the end of the body: with the end of the gzip file, when that can be right."""
        if not frame:
            return b""  # the connection is being cut
        crc, size = zlib.crc32(frame, self._crc), self._size + len(frame)
        body = self._header() + block(frame)
        if not self.whole:
            return body
        return body + FINAL + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")

    def _header(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else HEADER


class Windows:
    """The shared compressors of one worker: a bounded number, for the biggest groups."""

    def __init__(self) -> None:
        self._holders: list[Cohort] = []

    def grant(self, cohort: Cohort) -> bool:
        """Whether `cohort` may have one; it is taken from a much smaller group when there are none left."""
        if len(self._holders) >= MAX_WINDOWS:
            if len(cohort.sinks) < 2:
                return False
            smallest = min(self._holders, key=lambda holder: len(holder.sinks))
            if 2 * len(smallest.sinks) > len(cohort.sinks):
                return False
            smallest.close()
        self._holders.append(cohort)
        return True

    def release(self, cohort: Cohort) -> None:
        """Takes it back."""
        self._holders.remove(cohort)


class Cohort:
    """The compressed streams of one group.

    :param sinks: the group's list of its sinks, which have a `coding` each.
    """

    __slots__ = ("_debt", "_deflate", "_windows", "astray", "sinks", "tally")

    def __init__(self, sinks: list[Sink], windows: Windows) -> None:
        self.sinks = sinks
        self.tally = Tally()
        self.astray = 0  # how many of the streams are not in step
        self._windows = windows
        self._deflate: zlib._Compress | None = None
        self._debt = 0  # chunks that streams astray were sent since the last start

    def chunks(self, frames: bytes, personal: Mapping[Sink, bytes]) -> list[tuple[Sequence[Sink], bytes]]:
        """What to write to whom, so that all have `frames`, and some instead what is `personal`."""
        for sink in personal:
            _coding(sink).leave()
        self.tally.note(frames)
        made: list[tuple[Sequence[Sink], bytes]] = []
        for sink, own in personal.items():
            made.append(((sink,), _coding(sink).own(own)))
        common = [sink for sink in self.sinks if sink not in personal] if personal else self.sinks
        made += self._common(common, frames)
        for sink in personal:
            _coding(sink).join(self)
        return made

    def _common(self, sinks: Sequence[Sink], frames: bytes) -> list[tuple[Sequence[Sink], bytes]]:
        if not sinks:
            return []
        if self._deflate is None and not self._open():
            return [(sinks, block(frames))]
        assert self._deflate is not None
        start = b""
        self._debt += self.astray
        if self._debt >= len(sinks):
            start = self._start(sinks)
        if not self.astray:
            return [(sinks, start + self._shared(frames))]
        in_step = [sink for sink in sinks if not _coding(sink).astray]
        others = [sink for sink in sinks if _coding(sink).astray]
        return [(in_step, self._shared(frames)), (others, block(frames))]

    def _open(self) -> bool:
        if self._windows.grant(self):
            self._deflate = _compressor()
            self._debt = len(self.sinks)
        return self._deflate is not None

    def _start(self, sinks: Sequence[Sink]) -> bytes:
        """Forgets the window: who gets the next chunk is in step."""
        assert self._deflate is not None
        for sink in sinks:
            coding = _coding(sink)
            if coding.astray:
                coding.astray = False
                self.astray -= 1
        self._debt = 0
        return self._deflate.flush(zlib.Z_FULL_FLUSH)

    def _shared(self, frames: bytes) -> bytes:
        assert self._deflate is not None
        return self._deflate.compress(frames) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def close(self) -> None:
        """Gives the window back; the streams go on without."""
        if self._deflate is not None:
            self._deflate = None
            self._windows.release(self)
            for sink in self.sinks:
                _coding(sink).stray()


def _coding(sink: Sink) -> GzipStream:
    assert sink.coding is not None
    return sink.coding


# -- checksums ----------------------------------------------------------------------------------------------

_POLYNOMIAL = 0xEDB88320  # of CRC-32, bits reflected: the highest bit stands for x**0


def shift(crc: int, count: int) -> int:
    """What `crc` contributes to a checksum when `count` bytes follow: crc * x**(8 * count)."""
    place = 0
    while count and crc:
        if count & 0xFF:
            crc = _product(_factor(place, count & 0xFF), crc)
        count >>= 8
        place += 1
    return crc


@lru_cache(maxsize=2048)
def _factor(place: int, digit: int) -> int:
    """x**(8 * digit * 256**place)."""
    factor, power = 0x80000000, 8 * place + 3  # 1, and 8 is 2**3
    while digit:
        if digit & 1:
            factor = _product(_SQUARES[power % 32], factor)
        digit >>= 1
        power += 1
    return factor


def _product(a: int, b: int) -> int:
    """a * b modulo the polynomial."""
    product = 0
    while a:
        if a & 0x80000000:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> list[int]:
    """x**(2**n) for n from 0 to 31; then it begins again, since x**(2**32) is x."""
    squares = [0x40000000]
    while len(squares) < 32:
        squares.append(_product(squares[-1], squares[-1]))
    return squares


_SQUARES = _squares()
