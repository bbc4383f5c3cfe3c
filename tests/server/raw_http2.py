"""Just enough HTTP/2 to misbehave with: what a proper client would never send, or never read."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path: str, **more: str) -> bytes:
    """Return the header block of a gRPC call: literals without indexing."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def message(raw: bytes, length: int | None = None, compressed: int = 0) -> bytes:
    """Return ``raw`` as a gRPC message, whose prefix may lie."""
    return bytes([compressed]) + struct.pack(">I", len(raw) if length is None else length) + raw


class Connection:
    """A TCP connection that says what it is told."""

    def __init__(self, address: str, *, window: int | None = None, hello: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        if hello:
            settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def greet(self) -> None:
        """Read the server's settings and acknowledge them, as whoever goes on to vanish has done."""
        assert any(kind == SETTINGS for kind, *_ in self.frames(0.2))
        self.send(frame(SETTINGS, ACK, 0))

    def send(self, data: bytes) -> None:
        """Send all of it; raises OSError if the server does not take it."""
        self.socket.sendall(data)

    def call(self, stream: int, path: str, raw: bytes) -> None:
        """Send a whole call."""
        self.send(frame(HEADERS, END_HEADERS, stream, headers(path)))
        body = message(raw)
        for at in range(0, len(body), 16_384):
            last = at + 16_384 >= len(body)
            self.send(frame(DATA, END_STREAM if last else 0, stream, body[at : at + 16_384]))

    def frames(self, seconds: float) -> list[tuple[int, int, int, bytes]]:
        """Read for so long, or until the server closes; return (kind, flags, stream, payload)."""
        self.socket.settimeout(seconds)
        data = b""
        with contextlib.suppress(OSError):
            while got := self.socket.recv(65_536):
                data += got
        found = []
        while len(data) >= 9:
            length = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
            data = data[9 + length :]
        return found

    def is_closed(self, seconds: float) -> bool:
        """Return whether the server closes the connection within so long. Nothing is answered meanwhile."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
