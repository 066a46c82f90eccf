"""What the FMLMS says to a coordinator of another process, at every boundary of rounds and when nodes are out (M.3387 8.4.1, 8.5).

    asked.json   the coordinator's question, in the job's folder; written by the ServerApp's process
    told.json    the FMLMS's word on it; written by the process that submitted the job

Both are written whole and signed with the coordinator's Ed25519 key, which both processes hold and nobody else can read. A question
bears a number that was never used before, and a word the number of its question: an older one, left over or put there, is none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from cellwright.errors import CellwrightError, FederationError
from cellwright.federation.audit.signing import Signer, verified
from cellwright.federation.contract import Spec
from cellwright.federation.management.records import Topology
from cellwright.federation.rounds import Pause
from cellwright.files import write_bytes

ASKED, TOLD = "asked.json", "told.json"
_PURPOSES = {ASKED: b"cellwright coordinator asks 1\0", TOLD: b"cellwright fmlms says 1\0"}
_LARGEST_BYTES = 64 << 20  # a topology of a hundred thousand nodes has room in it
_LOOK_S = 0.05


class Question(Spec):
    """Of a coordinator."""

    number: str  # random; no other question has it
    kind: Literal["between", "rebuild"]
    rounds: int = 0  # that ended
    topology: Topology | None = None  # the present one, to rebuild
    out: tuple[str, ...] = ()  # nodes that take no part
    reason: str = ""


class Word(Spec):
    """Of the FMLMS, on one question."""

    number: str  # of the question
    kind: Literal["go on", "pause", "cancel", "topology", "error"]
    reason: str = ""
    topology: Topology | None = None


_Said = TypeVar("_Said", Question, Word)


class _Signed(Spec):
    content: str  # JSON
    signature: str  # hex


@dataclass
class Asking:
    """The coordinator's end; `hooks` are the Coordinator's."""

    folder: Path  # of the job
    signer: Signer
    wait_s: float  # longest it waits for a word; whoever submitted the job may have been killed

    @property
    def hooks(self) -> dict[str, Any]:
        """`between` and `rebuild`, answered by the FMLMS of the other process."""
        return {"between": self.between, "rebuild": self.rebuild}

    def between(self, rounds: int) -> Pause | None:
        """Whether to pause, cancel or change the topology now. Where no word comes the training pauses: nobody would take its model."""
        word = self._asked(Question(number=secrets.token_hex(16), kind="between", rounds=rounds))
        if word is None:
            return Pause("pause", f"{self._silence()}; the same command goes on from here")
        if word.kind in ("pause", "cancel", "topology"):
            return Pause(word.kind, word.reason, word.topology)
        return None

    def rebuild(self, topology: Topology, out: frozenset[str], reason: str) -> Topology:
        """The next topology, without the nodes that are out.

        Raises:
            FederationError: the FMLMS can make none, or no word came.
        """
        asked = {"topology": topology, "out": tuple(sorted(out)), "reason": reason}
        word = self._asked(Question(number=secrets.token_hex(16), kind="rebuild", **asked))
        if word is None or word.topology is None:
            raise FederationError(
                f"{self._silence()}, and nodes are out ({reason}); what was done is kept: run the same command again"
            )
        return word.topology

    def _asked(self, question: Question) -> Word | None:
        """The word on a question; None: none came in time."""
        _write(self.folder / ASKED, question, self.signer)
        until = time.monotonic() + self.wait_s
        while time.monotonic() < until:
            word = _read(self.folder / TOLD, Word, self.signer)
            if word is not None and word.number == question.number:
                if word.kind == "error":
                    raise FederationError(word.reason)
                return word
            time.sleep(_LOOK_S)
        return None

    def _silence(self) -> str:
        return f"the FMLMS, in the process that submitted this training, did not answer within {self.wait_s:g} s"


@dataclass
class Answering:
    """The FMLMS's end, in the process that submitted the job."""

    folder: Path
    signer: Signer
    between: Callable[[int], Pause | None]
    rebuild: Callable[[Topology, frozenset[str], str], Topology]
    _last: str = field(default="", init=False)

    @classmethod
    def by(cls, folder: Path, signer: Signer, hooks: Mapping[str, Any]) -> Answering:
        """With the hooks that a coordinator of this process would have; questions and words of earlier runs are taken away."""
        for name in (ASKED, TOLD):
            (folder / name).unlink(missing_ok=True)
        return cls(folder, signer, hooks["between"], hooks["rebuild"])

    def look(self) -> None:
        """Answer the question that is there, if it is a new one.

        Raises:
            FederationError: it is not signed by the coordinator.
        """
        question = _read(self.folder / ASKED, Question, self.signer)
        if question is None or question.number == self._last:
            return
        self._last = question.number
        try:
            word = self._word(question)
        except CellwrightError as error:
            word = Word(number=question.number, kind="error", reason=str(error))
        _write(self.folder / TOLD, word, self.signer)

    def _word(self, question: Question) -> Word:
        if question.kind == "rebuild" and question.topology is not None:
            topology = self.rebuild(question.topology, frozenset(question.out), question.reason)
            return Word(number=question.number, kind="topology", reason=topology.reason, topology=topology)
        pause = self.between(question.rounds)
        if pause is None:
            return Word(number=question.number, kind="go on")
        return Word(number=question.number, kind=pause.kind, reason=pause.reason, topology=pause.topology)


def _write(path: Path, said: Question | Word, signer: Signer) -> None:
    content = said.model_dump_json()
    signed = _Signed(content=content, signature=signer.sign_bytes(_PURPOSES[path.name] + content.encode()).hex())
    write_bytes(path, signed.model_dump_json().encode(), mode=0o600)


def _read(path: Path, kind: type[_Said], signer: Signer) -> _Said | None:
    """What a file says; None: there is none yet.

    Raises:
        FederationError: too large, not of this form, or not signed by the coordinator.
    """
    try:
        with path.open("rb") as file:
            found = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        if len(found) > _LARGEST_BYTES:
            raise ValueError(f"it has more than {_LARGEST_BYTES:,} bytes")
        signed = _Signed.model_validate_json(found)
        if not verified(bytes.fromhex(signed.signature), _PURPOSES[path.name] + signed.content.encode(), signer.public):
            raise ValueError("it is not signed with the coordinator's key")
        return kind.model_validate_json(signed.content)
    except (ValueError, ValidationError) as error:
        raise FederationError(
            f"{path} cannot be believed ({error}): another program wrote there; remove it, and run the same command again"
        ) from error
