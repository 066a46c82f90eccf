"""What the choice looks at, from what scoring and training left behind."""

from __future__ import annotations

from collections.abc import Sequence

from cellwright.ranking.pairs import Pairs
from cellwright.ranking.sentence import Contender
from cellwright.results import Scored, Trained
from cellwright.workspace import Workspace


def contenders(ws: Workspace, scored: Sequence[Scored], validation: Pairs) -> list[Contender]:
    """One a scored candidate; accuracy from the validation span only."""
    trained = {s.key: Trained.read(ws.candidate(s.key) / "candidate.json") for s in scored}
    return [
        Contender(
            key=s.key,
            title=s.title,
            mae=validation.mae(s.key),
            energy_j=s.cost.get("train_energy_j"),
            energy_words=s.sources.get("train_energy_j", "measured").partition(":")[0],
            cpu_s=trained[s.key].cpu_s,
            dropped=trained[s.key].status == "halved",
        )
        for s in scored
    ]
