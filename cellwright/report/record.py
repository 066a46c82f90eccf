"""What a run left behind, read once: leaderboard, candidates with scores and history, federations, and the panel's schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwright.errors import CellwrightError
from cellwright.federation.results import Federated, Round
from cellwright.panel import Panel, PanelSchema
from cellwright.results import Leaderboard, Probed, Row, Scorecard, Scored, Trained
from cellwright.workspace import Workspace

Epoch = dict[str, Any]  # epoch, step, train_loss, validation_loss, learning_rate, elapsed_s, cpu_s, rss_bytes


@dataclass(frozen=True)
class Federation:
    """How a federated candidate was trained."""

    result: Federated
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Candidate:
    """One candidate of a run; a failed one may have neither row nor scores."""

    key: str
    folder: Path
    trained: Trained | None
    scored: Scored | None
    row: Row | None
    history: tuple[Epoch, ...]
    failure: str | None = None
    probed: Probed | None = None  # its dear KPIs, if it is a finalist
    federation: Federation | None = None  # None: it was trained centrally, or its federation never ended

    @property
    def title(self) -> str:
        """The name for people."""
        named = self.row or self.trained
        return named.title if named else self.key


@dataclass(frozen=True)
class Record:
    """A run: its candidates in the order of the leaderboard, failed ones last."""

    board: Leaderboard
    candidates: tuple[Candidate, ...]
    schema: PanelSchema
    card: Scorecard | None = None  # None: the finalists were not probed

    def candidate(self, key: str) -> Candidate:
        """The candidate of that key.

        Raises:
            CellwrightError: the run has no such candidate.
        """
        for candidate in self.candidates:
            if candidate.key == key:
                return candidate
        raise CellwrightError(
            f"run {self.board.run} has no candidate '{key}'; it has {', '.join(c.key for c in self.candidates)}"
        )

    @property
    def champion(self) -> Candidate:
        """The candidate that was chosen."""
        return self.candidate(self.board.choice.key)


def read(ws: Workspace) -> Record:
    """Read a finished run.

    Raises:
        CellwrightError: the leaderboard or a ranked candidate's files are missing or of another form.
    """
    board = Leaderboard.read(ws.leaderboard)
    card = Scorecard.read(ws.scorecard) if ws.scorecard.is_file() else None
    probed = {finalist.key: finalist for finalist in card.finalists} if card is not None else {}
    ranked = [_candidate(ws, row.key, row, probed.get(row.key)) for row in sorted(board.rows, key=lambda r: r.rank)]
    failed = [_failed(ws, failure.key, failure.reason) for failure in board.failures]
    return Record(board, (*ranked, *failed), Panel.open(ws.panel(board.data.dataset)).schema, card)


def _candidate(ws: Workspace, key: str, row: Row, probed: Probed | None) -> Candidate:
    folder = ws.candidate(key)
    return Candidate(
        key=key,
        folder=folder,
        trained=Trained.read(folder / "candidate.json"),
        scored=Scored.read(ws.score(key)),
        row=row,
        history=_history(folder / "history.jsonl"),
        probed=probed,
        federation=federation(folder),
    )


def _failed(ws: Workspace, key: str, reason: str) -> Candidate:
    """What there is of a failed candidate: it may have ended before it wrote anything."""
    folder = ws.candidate(key)
    card = folder / "candidate.json"
    trained = Trained.read(card) if card.is_file() else None
    history = _history(folder / "history.jsonl")
    return Candidate(key, folder, trained, None, None, history, reason, federation=federation(folder))


def federation(folder: Path) -> Federation | None:
    """What came of the federation in a candidate's folder; None: there was none, or it did not end.

    Raises:
        CellwrightError: its files are of another form, or its rounds are missing.
    """
    from cellwright.federation.federate import RESULT, ROUNDS

    if not (folder / RESULT).is_file():
        return None
    path = folder / ROUNDS
    try:
        rounds = tuple(Round.model_validate_json(line) for line in path.read_text().splitlines())
    except FileNotFoundError:
        raise CellwrightError(f"{path} is missing beside {RESULT}; train this candidate again") from None
    except ValueError as error:
        raise CellwrightError(f"{path} is not a file of rounds: {error}") from error
    return Federation(Federated.read(folder / RESULT), rounds)


def _history(path: Path) -> tuple[Epoch, ...]:
    """One object an epoch; none for a closed form, which writes no file. A killed process may leave half a last line."""
    if not path.is_file():
        return ()
    epochs = []
    for line in path.read_text().splitlines():
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return tuple(epochs)
