"""An httpx transport that breaks off when it is told to, so that a thread in the middle of a download ends soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx


class Stopping(httpx.BaseTransport):
    """Another transport's requests, until `stopped` is set; then they fail as if the line had broken."""

    def __init__(self, inner: httpx.BaseTransport, stopped: threading.Event) -> None:
        self._inner, self._stopped = inner, stopped

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        if self._stopped.is_set():
            raise httpx.ConnectError("stopping", request=request)
        answer = self._inner.handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        answer.stream = _Stream(answer.stream, self._stopped)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, stopped: threading.Event) -> None:
        self._inner, self._stopped = inner, stopped

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            if self._stopped.is_set():
                raise httpx.ReadError("stopping")
            yield chunk

    def close(self) -> None:
        self._inner.close()
