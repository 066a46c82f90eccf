"""What the hub answered last: for a device that asks the same again while the hub is away.

<folder>/<SHA-256 of the question>.json     one answer, readable by its owner alone, as the grant is in it

A question is the hub, whoever asks (the token), the device and all that it wants; an answer to another question is never given. It is
believed for a day at most; whether the grant in it still holds is for the edges to say, by their own clocks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cellwright.files import write_bytes
from cellwright.hub.contract import Amount, Digest, Line, ModelName, Seconds, TenantName, Wire

log = logging.getLogger(__name__)
MOST_AGE_S = 86_400.0
_LEEWAY_S = 60.0  # by which the device's clock may have gone back since
_MOST = 64  # answers that are kept
_MOST_BYTES = 1 << 20


class Place(Wire):
    """An edge that has the model."""

    url: str
    name: str
    zone: str | None


class Answer(Wire):
    """What was found, before anything is said of the way there. `keys`: PEM."""

    tenant: TenantName
    model: ModelName
    version: str  # or "latest"
    digest: Digest | None
    bytes: Amount | None
    keys: tuple[str, ...]
    grant: str
    edges: tuple[Place, ...]
    why: Line


class _Kept(Wire):
    question: str
    kept_s: Seconds
    answer: Answer


@dataclass(frozen=True)
class Remembered:
    """An answer, and how old it is; `too_old`: not to be used any more."""

    answer: Answer
    age_s: float

    @property
    def too_old(self) -> bool:
        """Whether it is not believed any more, or the device's clock was set back, so that nobody knows its age."""
        return not -_LEEWAY_S <= self.age_s <= MOST_AGE_S


class Memory:
    """The answers in one folder. `clock`: Unix time."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def keep(self, question: str, answer: Answer) -> None:
        """Keep an answer in place of the last one to the same question. Raises WorkspaceError: the disk is full."""
        kept = _Kept(question=question, kept_s=self._clock(), answer=answer)
        write_bytes(self._path(question), kept.model_dump_json().encode(), mode=0o600)
        with suppress(FileNotFoundError):  # another fetch of this device threw it away
            for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[:-_MOST]:
                path.unlink()

    def last(self, question: str) -> Remembered | None:
        """The last answer to this very question; None: there is none, or none that can be read."""
        path = self._path(question)
        try:
            if path.stat().st_size > _MOST_BYTES:
                return None
            kept = _Kept.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the hub's last answer cannot be read: %s", error)
            return None
        except ValidationError as error:
            log.warning("%s is no answer of a hub: %s", path, error.errors()[0]["msg"])
            return None
        return Remembered(kept.answer, self._clock() - kept.kept_s) if kept.question == question else None

    def forget(self, question: str) -> None:
        """The hub has taken it back."""
        self._path(question).unlink(missing_ok=True)

    def _path(self, question: str) -> Path:
        return self._folder / f"{hashlib.sha256(question.encode()).hexdigest()}.json"


def question(hub: str, token: str, device: str, wanted: dict[str, Any]) -> str:
    """One way to write a question. Of the token only its hash is kept."""
    whose = hashlib.sha256(token.encode()).hexdigest()
    return json.dumps({"hub": hub, "whose": whose, "device": device, "wanted": wanted}, sort_keys=True, allow_nan=False)
