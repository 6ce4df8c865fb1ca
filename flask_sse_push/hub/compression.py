"""`Content-Encoding: gzip` for streams, with one deflate window for all streams of a group.

The streams of a group get the same text, so one compressor serves the whole group: the *shared window*. Its
chunks are raw deflate blocks. Each chunk ends at a whole byte (a sync flush), so a browser can read the chunk
at once. Chunks are small because they refer back to earlier chunks. A client can therefore read a chunk only
if its stream got all earlier chunks of the shared window and nothing in between. Such a stream is *in sync*.

A stream that has just joined, or that got a chunk of its own such as a heartbeat, is *out of sync*. Such a
stream gets each chunk compressed alone, without references. When these extra chunks have cost about as much
as a restart, the shared window restarts with a chunk that refers to nothing. All streams are then in sync.

A gzip file (RFC 1952) begins with a header and ends with the checksum and the length of the whole text. A
stream gets the header before its first chunk. If the stream is not cut off, it gets the checksum and the
length at its end. The checksum of a stream is computed from two checksums: one of the text that only this
stream got, and one of the group's text. The checksum of the group's text is kept once for all streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from .checksum import shift
from .stream import Recipients, Stream

#: The header of a gzip file: deflate, no name, no time, no flags, unknown system.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: An empty deflate block, which adds nothing to the text.
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
#: An empty deflate block, marked as the last one.
FINAL = b"\x03\x00"
#: At most this many shared windows per worker. In a group without a shared window, each chunk is compressed
#: alone.
MAX_WINDOWS = 100
#: The settings of zlib: chunks refer back at most 2**WINDOW_BITS bytes; MEMORY and LEVEL are the parameters
#: `memLevel` and `level` of zlib. A shared window with these settings takes about 100 kB.
WINDOW_BITS = 13
MEMORY = 7
LEVEL = 6


def _compressor() -> zlib._Compress:
    return zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY)


@lru_cache(maxsize=4)
def compress_alone(frames: bytes) -> bytes:
    """Compresses `frames` into deflate blocks without references, so every client can read them."""
    deflate = _compressor()
    return deflate.compress(frames) + deflate.flush(zlib.Z_SYNC_FLUSH)


class StreamCompression:
    """The compression of one stream: its checksum, and whether it is in sync with its group.

    Until the stream joins a group, only the thread that runs its response body may call the methods. After
    that, any thread that holds the hub's lock may call them, in the order in which chunks are written.
    """

    __slots__ = (
        "_crc",
        "_frozen",
        "_group_size",
        "_has_header",
        "_size",
        "_window",
        "complete",
        "out_of_sync",
    )

    def __init__(self) -> None:
        self.out_of_sync = False
        self.complete = True  # whether the client gets every chunk; if not, the body ends without a checksum
        self._has_header = False
        self._frozen = False
        self._window: SharedWindow | None = None
        # Checksum and length of the text that the stream got. The text that the stream got from its group is
        # added when the stream leaves the group: see `leave`.
        self._crc = 0
        self._size = 0
        self._group_size = 0  # length of the group's text when the stream joined

    def encode_alone(self, frames: bytes) -> bytes:
        """Returns `frames` compressed for this stream alone. The stream is out of sync afterwards."""
        window = self._window
        if window is not None:
            self.leave()
        if not self._frozen:
            self._crc = zlib.crc32(frames, self._crc)
            self._size += len(frames)
        if window is not None:
            self.join(window)
        return self.header() + compress_alone(frames)

    def join(self, window: SharedWindow) -> None:
        """Called when the stream begins to get the chunks of its group."""
        if self._frozen:
            return
        self._window, self._group_size = window, window.size
        self._crc ^= window.crc  # a comment in `leave` explains this step
        self.out_of_sync = False
        self.lose_sync()

    def lose_sync(self) -> None:
        """Notes that the stream missed a chunk of the shared window, or got another chunk in between."""
        if self._window is not None and not self.out_of_sync:
            self.out_of_sync = True
            self._window.out_of_sync += 1
            self._window.parts = None

    def leave(self) -> None:
        """Called when the stream stops getting the chunks of its group.

        Adds the text that the stream got from the group to the stream's own checksum and length.
        """
        window, self._window = self._window, None
        if window is None:
            return
        # S is the text of the stream when it joined, G the text of the group at that time. B is the text that
        # both got since then. |B| is the length of B.
        #   crc(S + B) = shift(crc(S), |B|) ^ crc(B)      and      crc(B) = shift(crc(G), |B|) ^ crc(G + B)
        # `join` has put crc(S) ^ crc(G) into `_crc`, so crc(S + B) = shift(_crc, |B|) ^ crc(G + B).
        size = window.size - self._group_size
        self._crc = shift(self._crc, size) ^ window.crc
        self._size += size
        window.parts = None
        if self.out_of_sync:
            window.out_of_sync -= 1

    def freeze(self) -> None:
        """Called when the stream begins to close: only its last frame may follow."""
        if self._window is not None:
            self.leave()
            self._frozen = True

    def last(self, frame: bytes) -> bytes:
        """Returns the end of the body: `frame`, then the end of the gzip file if `complete` is true.

        If `frame` is empty, the connection is being cut. Then returns b"", so the gzip file has no end.
        """
        if not frame:
            return b""
        crc, size = zlib.crc32(frame, self._crc), self._size + len(frame)
        body = self.header() + compress_alone(frame)
        if not self.complete:
            return body
        return body + FINAL + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")

    def header(self) -> bytes:
        """Returns the header of the gzip file at the first call, then b""."""
        had, self._has_header = self._has_header, True
        return b"" if had else HEADER


class WindowPool:
    """Decides which groups of one worker have a shared window: at most `MAX_WINDOWS`, big groups first."""

    def __init__(self) -> None:
        self._holders: list[SharedWindow] = []

    def grant(self, window: SharedWindow) -> bool:
        """Returns whether `window` may have a compressor.

        If `MAX_WINDOWS` compressors are in use, takes a compressor away from the smallest group that has one.
        Returns False if that group has more than half as many streams as the group of `window`.
        """
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
        """Called when `window` does not need its compressor any more."""
        self._holders.remove(window)


class SharedWindow:
    """The compressor of one group.

    :param recipients: the group's list of streams. The `compression` of each stream must be set.
    :param pool: decides whether the group may have a compressor.
    """

    __slots__ = ("_deflate", "_extra_chunks", "_pool", "crc", "out_of_sync", "parts", "recipients", "size")

    def __init__(self, recipients: Recipients, pool: WindowPool) -> None:
        self.recipients = recipients  # the group replaces this list when it must not change any more
        self.crc = 0  # checksum of all text that was sent to the group
        self.size = 0  # length of all text that was sent to the group, in bytes
        self.out_of_sync = 0  # number of streams of the group that are out of sync
        # The streams in sync and the streams out of sync; None if the lists must be made again.
        self.parts: tuple[Recipients, Recipients] | None = None
        self._pool = pool
        self._deflate: zlib._Compress | None = None
        self._extra_chunks = 0  # chunks compressed alone since the last restart, counted for each stream

    @property
    def streams(self) -> list[Stream]:
        """The streams of the group."""
        return self.recipients.streams

    def chunks(self, frames: bytes, personal: Mapping[Stream, bytes]) -> list[tuple[Recipients, bytes]]:
        """Compresses `frames` for all streams. Returns each chunk with the streams that get the chunk.

        :param personal: for each stream that must not get `frames`, the frames that it gets instead.
        """
        for stream in personal:
            _compression(stream).leave()
        self.crc = zlib.crc32(frames, self.crc)
        self.size += len(frames)
        made: list[tuple[Recipients, bytes]] = []
        for stream, own_frames in personal.items():
            made.append((self._some([stream]), _compression(stream).encode_alone(own_frames)))
        others = self.recipients.share()
        if personal:
            others = self._some([stream for stream in others.streams if stream not in personal])
        made += self._common_chunks(others, frames)
        for stream in personal:
            _compression(stream).join(self)
        return made

    def _some(self, streams: Sequence[Stream]) -> Recipients:
        """Returns a list of some streams, for a delivery."""
        return type(self.recipients)(streams).share()

    def _common_chunks(self, recipients: Recipients, frames: bytes) -> list[tuple[Recipients, bytes]]:
        streams = recipients.streams
        if not streams:
            return []
        deflate = self._deflate or self._open()
        if deflate is None:
            return [(recipients, compress_alone(frames))]
        restart = b""
        self._extra_chunks += self.out_of_sync
        if self._extra_chunks >= len(streams):
            restart = self._restart(deflate, streams)
        shared = restart + deflate.compress(frames) + deflate.flush(zlib.Z_SYNC_FLUSH)
        if not self.out_of_sync:
            return [(recipients, shared)]
        parts = self.parts if recipients is self.recipients else None
        if parts is None or parts[0].is_outdated or parts[1].is_outdated:
            parts = (
                self._some([stream for stream in streams if not _compression(stream).out_of_sync]),
                self._some([stream for stream in streams if _compression(stream).out_of_sync]),
            )
            self.parts = parts if recipients is self.recipients else None
        return list(zip(parts, (shared, compress_alone(frames)), strict=True))

    def _open(self) -> zlib._Compress | None:
        if self._pool.grant(self):
            self._deflate = _compressor()
            self._extra_chunks = len(self.streams)  # so the next chunk is a restart: see `_common_chunks`
        return self._deflate

    def _restart(self, deflate: zlib._Compress, streams: Sequence[Stream]) -> bytes:
        """Restarts the window: the next chunk refers to nothing, so all streams that get it are in sync."""
        for stream in streams:
            compression = _compression(stream)
            if compression.out_of_sync:
                compression.out_of_sync = False
                self.out_of_sync -= 1
        self._extra_chunks, self.parts = 0, None
        return deflate.flush(zlib.Z_FULL_FLUSH)

    def close(self) -> None:
        """Gives the compressor back to the pool. From now on each chunk for the group is compressed alone."""
        if self._deflate is not None:
            self._deflate = None
            self._pool.release(self)
            for stream in self.streams:
                _compression(stream).lose_sync()


def _compression(stream: Stream) -> StreamCompression:
    assert stream.compression is not None
    return stream.compression
