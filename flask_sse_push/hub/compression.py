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

from .stream import Stream

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


class Checksum:
    """Checksum and length of all text that went to a group."""

    __slots__ = ("crc", "size")

    def __init__(self) -> None:
        self.crc = 0
        self.size = 0

    def note(self, frames: bytes) -> None:
        """Adds what goes to all of the group now."""
        self.crc = zlib.crc32(frames, self.crc)
        self.size += len(frames)


class StreamCompression:
    """The encoding of one stream: what its text adds up to, and whether it is in step with its group.

    Called by one thread at a time: that of its generator until it has joined a group, then under the hub's
    lock, in the order in which chunks are written.
    """

    __slots__ = ("_begun", "_crc", "_frozen", "_since", "_size", "_window", "complete", "out_of_sync")

    def __init__(self) -> None:
        self.out_of_sync = False
        self.complete = True  # whether the client was sent all that was noted: else no checksum is right
        self._begun = False
        self._frozen = False
        self._window: SharedWindow | None = None
        self._crc = 0  # of its text; while in a group without the group's part
        self._size = 0  # bytes of its text; while in a group without the group's part
        self._since = 0  # the group's size when it joined

    def encode_alone(self, frames: bytes) -> bytes:
        """`frames` for this stream alone."""
        window = self._window
        if window is not None:
            self.leave()
        if not self._frozen:
            self._crc = zlib.crc32(frames, self._crc)
            self._size += len(frames)
        if window is not None:
            self.join(window)
        return self._header() + block(frames)

    def join(self, window: SharedWindow) -> None:
        """From here on the stream gets what its group gets."""
        if self._frozen:
            return
        checksum = window.checksum
        self._window, self._since = window, checksum.size
        self._crc ^= checksum.crc  # see `leave`
        self.out_of_sync = False
        self.lose_sync()

    def lose_sync(self) -> None:
        """It is not in step any more."""
        if self._window is not None and not self.out_of_sync:
            self.out_of_sync = True
            self._window.out_of_sync += 1

    def leave(self) -> None:
        """From here on it does not: what came from the group counts as its own."""
        window, self._window = self._window, None
        if window is None:
            return
        # With S its text before, G the group's text before and B what both got since, crc(SB) is
        # shift(crc(S), |B|) ^ crc(B), and crc(B) is crc(GB) ^ shift(crc(G), |B|).
        both = window.checksum.size - self._since
        self._crc = shift(self._crc, both) ^ window.checksum.crc
        self._size += both
        if self.out_of_sync:
            window.out_of_sync -= 1

    def freeze(self) -> None:
        """The stream is ending: nothing but its last words will come."""
        if self._window is not None:
            self.leave()
            self._frozen = True

    def last(self, frame: bytes) -> bytes:
        """`frame` as the end of the body: with the end of the gzip file, when that can be right."""
        if not frame:
            return b""  # the connection is being cut
        crc, size = zlib.crc32(frame, self._crc), self._size + len(frame)
        body = self._header() + block(frame)
        if not self.complete:
            return body
        return body + FINAL + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")

    def _header(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else HEADER


class WindowPool:
    """The shared compressors of one worker: a bounded number, for the biggest groups."""

    def __init__(self) -> None:
        self._holders: list[SharedWindow] = []

    def grant(self, window: SharedWindow) -> bool:
        """Whether `cohort` may have one; it is taken from a much smaller group when there are none left."""
        if len(self._holders) >= MAX_WINDOWS:
            if len(window.streams) < 2:
                return False
            smallest = min(self._holders, key=lambda holder: len(holder.streams))
            if 2 * len(smallest.streams) > len(window.streams):
                return False
            smallest.close()
        self._holders.append(window)
        return True

    def release(self, window: SharedWindow) -> None:
        """Takes it back."""
        self._holders.remove(window)


class SharedWindow:
    """The compressed streams of one group.

    :param sinks: the group's list of its sinks, which have a `coding` each.
    """

    __slots__ = ("_debt", "_deflate", "_window_pool", "checksum", "out_of_sync", "streams")

    def __init__(self, streams: list[Stream], window_pool: WindowPool) -> None:
        self.streams = streams
        self.checksum = Checksum()
        self.out_of_sync = 0  # how many of the streams are not in step
        self._window_pool = window_pool
        self._deflate: zlib._Compress | None = None
        self._debt = 0  # chunks that streams astray were sent since the last start

    def chunks(self, frames: bytes, personal: Mapping[Stream, bytes]) -> list[tuple[Sequence[Stream], bytes]]:
        """What to write to whom, so that all have `frames`, and some instead what is `personal`."""
        for stream in personal:
            _coding(stream).leave()
        self.checksum.note(frames)
        made: list[tuple[Sequence[Stream], bytes]] = []
        for stream, own in personal.items():
            made.append(((stream,), _coding(stream).encode_alone(own)))
        common = [stream for stream in self.streams if stream not in personal] if personal else self.streams
        made += self._common(common, frames)
        for stream in personal:
            _coding(stream).join(self)
        return made

    def _common(self, streams: Sequence[Stream], frames: bytes) -> list[tuple[Sequence[Stream], bytes]]:
        if not streams:
            return []
        if self._deflate is None and not self._open():
            return [(streams, block(frames))]
        assert self._deflate is not None
        start = b""
        self._debt += self.out_of_sync
        if self._debt >= len(streams):
            start = self._start(streams)
        if not self.out_of_sync:
            return [(streams, start + self._shared(frames))]
        in_step = [stream for stream in streams if not _coding(stream).out_of_sync]
        others = [stream for stream in streams if _coding(stream).out_of_sync]
        return [(in_step, self._shared(frames)), (others, block(frames))]

    def _open(self) -> bool:
        if self._window_pool.grant(self):
            self._deflate = _compressor()
            self._debt = len(self.streams)
        return self._deflate is not None

    def _start(self, streams: Sequence[Stream]) -> bytes:
        """Forgets the window: who gets the next chunk is in step."""
        assert self._deflate is not None
        for stream in streams:
            compression = _coding(stream)
            if compression.out_of_sync:
                compression.out_of_sync = False
                self.out_of_sync -= 1
        self._debt = 0
        return self._deflate.flush(zlib.Z_FULL_FLUSH)

    def _shared(self, frames: bytes) -> bytes:
        assert self._deflate is not None
        return self._deflate.compress(frames) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def close(self) -> None:
        """Gives the window back; the streams go on without."""
        if self._deflate is not None:
            self._deflate = None
            self._window_pool.release(self)
            for stream in self.streams:
                _coding(stream).lose_sync()


def _coding(stream: Stream) -> StreamCompression:
    assert stream.compression is not None
    return stream.compression


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
