"""Files that appear whole: written aside, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellwright.errors import WorkspaceError

_FOLDER_MODE = 0o755  # mkdtemp makes private folders; results are for everyone who may read the project


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable place into a WorkspaceError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceError(
                f"no space left while writing {path}; nothing was changed. Free some space (`cellwright gc`) and run again"
            ) from error
        if error.errno == errno.EFBIG:
            raise WorkspaceError(
                f"cannot write {path} ({error.strerror}); nothing was changed. Raise the limit of a file's size (ulimit -f)"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WorkspaceError(f"cannot write {path} ({error.strerror}); make the folder writable") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise WorkspaceError(f"cannot write {path}: a file lies where a folder is needed; move it away") from error
        raise


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path` whole or not at all. `mode`: 0o600 for what is nobody else's to read.

    Raises:
        WorkspaceError: the disk is full or the folder is not writable.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            Path(aside).chmod(mode)
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with a final newline, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `path` when the block ends well, and vanishes when it does not."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.with_name(f".{path.name}.old")
        if old.exists() and not path.exists():  # killed between the two renamings below
            old.replace(path)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        aside.chmod(_FOLDER_MODE)
        try:
            yield aside
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.replace(old)
            Path(aside).replace(path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
