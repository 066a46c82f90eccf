"""What a run left behind, read once: leaderboard, candidates with scores and history, and the panel's schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwright.errors import CellwrightError
from cellwright.panel import Panel, PanelSchema
from cellwright.results import Leaderboard, Probed, Row, Scorecard, Scored, Trained
from cellwright.workspace import Workspace

Epoch = dict[str, Any]  # epoch, step, train_loss, validation_loss, learning_rate, elapsed_s, cpu_s, rss_bytes


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
    )


def _failed(ws: Workspace, key: str, reason: str) -> Candidate:
    """What there is of a failed candidate: it may have ended before it wrote anything."""
    folder = ws.candidate(key)
    card = folder / "candidate.json"
    trained = Trained.read(card) if card.is_file() else None
    return Candidate(key, folder, trained, None, None, _history(folder / "history.jsonl"), reason)


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
