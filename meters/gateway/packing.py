"""An answer that comes packed although none was asked for: unpacked to be read, within bounds.

`calls` asks for `identity`; a provider that packs all the same is unpacked here, so that its usage
is counted and a key that it echoes is found. gzip in several members and deflate with or without
its header are read; what Python's own library cannot unpack, or comes packed twice, is `Unknown`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 1 << 20
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Unknown(ValueError):
    """Packed in a way that is not read here."""


class Unpacker:
    """One answer, piece by piece, up to `most` bytes of what it holds.

    Raises:
        Unknown: by the constructor, for another `content-encoding` than gzip and deflate.
    """

    def __init__(self, encoding: str, *, most: int) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise Unknown(encoding)
        self._is_gzip = encoding != "deflate"
        self._most = most
        self._found = 0
        self._at_start = True
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    @property
    def is_full(self) -> bool:
        """More than `most` bytes were held: no more is unpacked."""
        return self._found > self._most

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes hold, in pieces of at most a mebibyte.

        Raises:
            zlib.error: they are not packed as it was said.
        """
        if self._at_start and data:
            self._begin(data)
        while data and not self.is_full:
            found = self._inflate.decompress(data, PIECE)
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                # A further member, if it is one; anything else after the end is padding.
                data = self._inflate.unused_data.lstrip(b"\0")
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
                if not self._is_gzip:
                    data = b""
            self._found += len(found)
            if found:
                yield found
            elif not data:
                return

    def _begin(self, data: bytes) -> None:
        """Some send deflate without the header of zlib (RFC 9110, 8.4.1.2)."""
        self._at_start = False
        if not self._is_gzip and data[0] & 0x0F != 8:
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
