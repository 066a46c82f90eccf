"""Uploads in resumable chunks, checked while they arrive and once more when they are whole.

<folder>/uploads/<id>      the bytes so far; their number is the offset, so a kill at any byte loses none that is on the disk
<folder>/staging/<id>/     the OCI layout, while it is put together

Size and first bytes are looked at as they come, the SHA-256 is computed along (after a restart: anew from what is there). When the
last byte is there, intake.py makes the release. What is refused is deleted at once; a kill before the release is written leaves the
upload whole, and an empty chunk finishes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import sqlalchemy as sa

from cellwright.errors import BundleError
from cellwright.families import member
from cellwright.files import explained
from cellwright.hub import tables
from cellwright.hub.contract import Release, Upload, UploadForm
from cellwright.hub.core import Who
from cellwright.hub.formats._contract import HEAD_BYTES
from cellwright.hub.intake import Intake
from cellwright.hub.refusals import Conflict, HubRefused, NotFound, TooLarge
from cellwright.hub.tenants import check_quota

_CHUNK_BYTES = 1 << 20
_MOST_STATES = 256  # hashes under way that are remembered; another is computed anew when its upload goes on


class HashStates:
    """SHA-256 of what is there of each upload, as far as this process has seen it come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    def take(self, id_: str, file: BinaryIO, size: int) -> Any:
        """The hash of the first `size` bytes of an upload's file."""
        with self._lock:
            known = self._states.pop(id_, None)
        if known is not None and known[0] == size:
            return known[1]
        state, left = hashlib.sha256(), size
        file.seek(0)
        while left and (chunk := file.read(min(_CHUNK_BYTES, left))):
            state.update(chunk)
            left -= len(chunk)
        return state

    def keep(self, id_: str, size: int, state: Any) -> None:
        """Remember the hash of an upload that goes on later."""
        with self._lock:
            self._states[id_] = size, state
            while len(self._states) > _MOST_STATES:
                self._states.popitem(last=False)


_STATES = HashStates()


class Uploads(Intake):
    """Begin, go on with, finish and give up uploads."""

    def open_upload(self, who: Who, form: UploadForm) -> Upload:
        """Begin an upload.

        Raises:
            TooLarge: larger than the hub takes, or than the tenant's quota leaves.
            Conflict: the version is there already: versions never change.
        """
        if form.bytes > self.settings.file_bytes:
            raise TooLarge(f"a file has at most {self.settings.file_bytes:,} bytes here, announced are {form.bytes:,}")
        self.expire_uploads()
        now = self.clock()
        id_ = secrets.token_hex(16)
        upload = Upload(id=id_, form=form, offset=0, created_s=now, expires_s=now + self.settings.upload_lifetime_s)
        with self.store.write() as connection:
            self.refuse_again(connection, who.tenant, form)
            check_quota(connection, who.tenant, uploads=1, more_bytes=form.bytes)
            values = {"id": id_, "tenant": who.tenant, "form": form.model_dump_json(), "bytes": form.bytes, "who": who.label}
            connection.execute(sa.insert(tables.uploads).values(**values, created_s=now, expires_s=upload.expires_s))
            with explained(self._path(id_)):
                self._path(id_).parent.mkdir(parents=True, exist_ok=True)
                self._path(id_).touch()
        return upload

    def uploads(self, who: Who) -> tuple[Upload, ...]:
        """Open uploads of the asking tenant, oldest first."""
        t = tables.uploads
        with self.store.read() as connection:
            rows = connection.execute(sa.select(t).where(t.c.tenant == who.tenant).order_by(t.c.created_s)).mappings().all()
        return tuple(self._upload(row) for row in rows)

    def upload(self, who: Who, id_: str) -> Upload:
        """An open upload. Raises NotFound."""
        t = tables.uploads
        with self.store.read() as connection:
            row = connection.execute(sa.select(t).where(t.c.id == id_, t.c.tenant == who.tenant)).mappings().one_or_none()
        if row is None or row["expires_s"] <= self.clock():
            raise NotFound(f"there is no open upload '{id_[:64]}'; it was finished, refused, given up or has expired")
        return self._upload(row)

    def cancel_upload(self, who: Who, id_: str) -> None:
        """Give an upload up. Raises NotFound."""
        self.upload(who, id_)
        self._forget(id_)

    def arriving(self, who: Who, id_: str, offset: int) -> Arriving:
        """Go on with an upload at `offset`; a context manager that nobody else can hold meanwhile.

        Raises:
            NotFound: there is none. Conflict: another offset, or another connection is sending.
        """
        return Arriving(self, who, self.upload(who, id_), offset)

    def finish_upload(self, who: Who, upload: Upload, state: Any) -> Release:
        """Make the release of an upload whose last byte is there; what cannot be one is deleted. Raises HubRefused."""
        staging = self.folder / "staging" / upload.id
        try:
            release = self.take_in(who, upload, self._path(upload.id), state.hexdigest(), staging)
        except HubRefused as error:
            self._refuse(who, upload, str(error))
            raise
        except BundleError as error:
            self._refuse(who, upload, str(error))
            raise HubRefused(str(error)) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._path(upload.id).unlink(missing_ok=True)
        return release

    def expire_uploads(self) -> int:
        """Throw away what nobody went on with, and what no row names; returns how many."""
        t = tables.uploads
        with self.store.read() as connection:
            gone = list(connection.execute(sa.select(t.c.id).where(t.c.expires_s <= self.clock())).scalars())
        for id_ in gone:
            self._forget(id_)
        return len(gone) + self._sweep()

    def _sweep(self) -> int:
        """Delete files whose rows are gone, as a kill between the two leaves them; none is made while this transaction writes."""
        places = [path for folder in ("uploads", "staging") for path in (self.folder / folder).glob("*")]
        if not places:
            return 0
        with self.store.write() as connection:
            open_ = set(connection.execute(sa.select(tables.uploads.c.id)).scalars())
            nobodys = [path for path in places if path.name not in open_]
            for path in nobodys:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(nobodys)

    def _refuse(self, who: Who, upload: Upload, reason: str) -> None:
        self._forget(upload.id)
        with self.store.write() as connection:
            self.note(connection, who, "upload refuse", f"{upload.form.model} {upload.form.version}", reason)

    def _forget(self, id_: str) -> None:
        with self.store.write() as connection:
            connection.execute(sa.delete(tables.claims).where(tables.claims.c.upload == id_))
            connection.execute(sa.delete(tables.uploads).where(tables.uploads.c.id == id_))
        self._path(id_).unlink(missing_ok=True)

    def _upload(self, row: sa.RowMapping) -> Upload:
        path = self._path(row["id"])
        return Upload(
            id=row["id"],
            form=UploadForm.model_validate_json(row["form"]),
            offset=path.stat().st_size if path.exists() else 0,
            created_s=row["created_s"],
            expires_s=row["expires_s"],
        )

    def _path(self, id_: str) -> Path:
        return self.folder / "uploads" / id_

    def prolong(self, id_: str) -> None:
        """An upload that goes on lives on."""
        expires_s = self.clock() + self.settings.upload_lifetime_s
        with self.store.write() as connection:
            connection.execute(sa.update(tables.uploads).where(tables.uploads.c.id == id_).values(expires_s=expires_s))


class Arriving:
    """An upload while a connection sends a chunk of it."""

    def __init__(self, hub: Uploads, who: Who, upload: Upload, offset: int) -> None:
        self._hub, self._who, self.upload, self._asked = hub, who, upload, offset
        self._path = hub.folder / "uploads" / upload.id

    def __enter__(self) -> Self:
        try:
            with explained(self._path):
                self._file = self._path.open("r+b", buffering=0)  # one that was given up meanwhile is not made again
        except FileNotFoundError:
            raise NotFound("the upload was given up meanwhile, or its bytes are on another machine; begin again") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a kill lets go of it
            self.offset = os.fstat(self._file.fileno()).st_size
            if self.offset != self._asked:
                raise Conflict(
                    f"the upload is at byte {self.offset}, sent was from byte {self._asked}; ask with HEAD, go on from there"
                )
            self._state = _STATES.take(self.upload.id, self._file, self.offset)
        except BlockingIOError:
            self._file.close()
            raise Conflict("another connection is sending this upload; wait for it to end") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def add(self, content: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            TooLarge: more than were announced; the upload is thrown away.
            HubRefused: the first bytes are not of the format that was announced; it is thrown away too.
        """
        if self.offset + len(content) > self.upload.form.bytes:
            self._hub._refuse(self._who, self.upload, "more bytes than announced")
            raise TooLarge(f"more than the {self.upload.form.bytes:,} bytes that were announced; the upload was thrown away")
        with explained(self._path):
            self._written(content)
        before, self.offset = self.offset, self.offset + len(content)
        self._state.update(content)
        if before < HEAD_BYTES:
            self._sniff()

    def _written(self, content: bytes | bytearray) -> None:
        self._file.seek(self.offset)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) or 0 :]

    def finish(self) -> Release | None:
        """After the chunk: the release where the last byte is there, else None. Raises HubRefused."""
        if self.offset < self.upload.form.bytes:
            self._hub.prolong(self.upload.id)
            return None
        self._hub.prolong(self.upload.id)  # it does not expire while it is checked
        os.fsync(self._file.fileno())
        return self._hub.finish_upload(self._who, self.upload, self._state)

    def _sniff(self) -> None:
        head = os.pread(self._file.fileno(), HEAD_BYTES, 0)
        try:
            member("cellwright.hub.formats", self.upload.form.format, what="format").sniff(head)
        except HubRefused as error:
            self._hub._refuse(self._who, self.upload, str(error))
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.offset < self.upload.form.bytes:
            _STATES.keep(self.upload.id, self.offset, self._state)
        self._file.close()
