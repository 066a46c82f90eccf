"""Doors of uploads: a file in chunks, going on where it broke off (tus 1.0)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from cellwright.errors import HubError
from cellwright.hub import contract as c
from cellwright.hub.doors.models import Models
from cellwright.hub.refusals import Conflict, NotFound, TooMany

CHUNK_BYTES = 64 * 1024**2  # in one request; the hub keeps what has come of it when the line breaks
_PIECE_BYTES = 1 << 18  # read and sent at once
ATTEMPTS = 6  # in a row that bring nothing
TUS = {"Tus-Resumable": "1.0.0"}
_PAUSE_S = 0.2
_CHUNK_S, _FINISH_S = 60.0, 600.0  # the last chunk's answer comes when the whole file was checked


@dataclass
class _Sending:
    """An upload on its way."""

    id: str
    form: c.UploadForm
    file: BinaryIO
    offset: int
    chunk_bytes: int

    @property
    def size(self) -> int:
        """Bytes of the next chunk."""
        return min(self.chunk_bytes, self.form.bytes - self.offset)

    def pieces(self) -> Iterator[bytes]:
        """The next chunk, in pieces: a socket copies what it could not send at once."""
        self.file.seek(self.offset)
        left = self.size
        while left and (piece := self.file.read(min(_PIECE_BYTES, left))):
            left -= len(piece)
            yield piece


class Uploads(Models):
    """Uploads in chunks."""

    def upload(self, path: Path, form: c.UploadForm, *, chunk_bytes: int = CHUNK_BYTES) -> c.Release:
        """Upload a file; goes on where a broken upload of the same form stopped, in this process or an earlier one.

        Raises:
            HubRefused: the file is not what the form says, or a quota is reached; nothing of it is kept.
            HubError: the hub could not be reached; the same call goes on.
        """
        if (size := path.stat().st_size) != form.bytes:
            raise HubError(f"{path} has {size} bytes, the form announces {form.bytes}; the file was changed: make the form again")
        id_, offset = self._opened(form)
        with path.open("rb") as file:
            sending = _Sending(id_, form, file, offset, chunk_bytes)
            while not self._step(sending):
                pass
        return self.release(form.model, form.version)

    def uploads(self) -> tuple[c.Upload, ...]:
        """Open uploads of this tenant."""
        return self._get("/v1/uploads", tuple[c.Upload, ...])

    def cancel_upload(self, id_: str) -> None:
        """Give an upload up."""
        self._send("DELETE", f"/v1/uploads/{id_}", headers=TUS)

    def open_upload(self, form: c.UploadForm) -> c.Upload:
        """Begin an upload (`upload` does, and sends the bytes)."""
        return self._parsed(self._send("POST", "/v1/uploads", json=form.model_dump(mode="json"), headers=TUS), c.Upload)

    def send_chunk(
        self, id_: str, offset: int, content: bytes | Iterator[bytes], *, size: int | None = None, timeout_s: float = _CHUNK_S
    ) -> int:
        """Send bytes from `offset` on (`size`: of an iterator); the offset after them. Raises Conflict where the hub is at another."""
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        headers |= {} if size is None else {"Content-Length": str(size)}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        answer = self._raw("PATCH", f"/v1/uploads/{id_}", content=content, headers=headers, timeout=timeout)
        return int(answer.headers["Upload-Offset"])

    def upload_offset(self, id_: str) -> int:
        """How many bytes the hub has."""
        return int(self._raw("HEAD", f"/v1/uploads/{id_}", headers=TUS).headers["Upload-Offset"])

    def _opened(self, form: c.UploadForm) -> tuple[str, int]:
        known = next((u for u in self.uploads() if u.form == form), None) or self.open_upload(form)
        return known.id, known.offset

    def _step(self, sending: _Sending) -> bool:
        """Bring the upload on by one chunk, as often as that takes; returns whether it is finished."""
        for attempt in range(ATTEMPTS):
            try:
                return self._sent(sending)
            except (httpx.HTTPError, TooMany) as error:
                broken: Exception = error
            time.sleep(_PAUSE_S * 2**attempt)
            if self._finished_after_all(sending):
                return True
        raise self._unreachable(broken) from broken

    def _sent(self, sending: _Sending) -> bool:
        size = sending.size
        last = sending.offset + size >= sending.form.bytes
        timeout_s = _FINISH_S if last else _CHUNK_S
        try:
            sending.offset = self.send_chunk(sending.id, sending.offset, sending.pieces(), size=size, timeout_s=timeout_s)
        except Conflict:
            now = self.upload_offset(sending.id)
            if now == sending.offset:
                raise  # not the offset: the version is there already, or another process sends the same upload
            sending.offset = now
            return False
        return last

    def _finished_after_all(self, sending: _Sending) -> bool:
        """After the line broke: learn where the hub is; True where it had all of it and has made the release."""
        try:
            sending.offset = self.upload_offset(sending.id)
        except httpx.HTTPError:
            return False  # still away; the next attempt tells
        except NotFound:
            self.release(sending.form.model, sending.form.version)  # raises where the upload was lost instead of finished
            return True
        return False
