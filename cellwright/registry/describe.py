"""How runs read in MLflow's UI: tags, parameters, notes and the data set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cellwright.registry.lineage import git_commit
from cellwright.registry.trace import flat
from cellwright.report.record import Candidate, Record
from cellwright.report.words import exact, markdown_table
from cellwright.results import Leaderboard
from cellwright.runs import code_digest
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST = 36  # characters MLflow keeps of a data set's digest: an MD5 and `.dir`


def lineage_tags(ws: Workspace, record: Record) -> dict[str, str]:
    """What a run was made from: data version, code, commit. On every run and version."""
    tags = {
        "dataset": record.board.data.dataset,
        "data.version": record.board.data.hash,
        "code.digest": code_digest(),
        "run": ws.run,
        "mlflow.source.name": "cellwright",
        "mlflow.source.type": "PROJECT",
    }
    if commit := git_commit(ws.root):
        tags |= {"git.commit": commit, "mlflow.source.git.commit": commit.removesuffix("+changes")}
    return tags


def candidate_tags(candidate: Candidate, board: Leaderboard) -> dict[str, str]:
    """How a candidate fared, in words."""
    trained, row = candidate.trained, candidate.row
    status = "failed" if candidate.failure else (trained.status if trained else "unknown")
    reason = candidate.failure or (trained.reason if trained else "")
    tags = {
        "candidate": candidate.key,
        "status": status,
        "reason": reason,
        "mlflow.note.content": _candidate_note(candidate, reason),
    }
    if row is not None:
        tags |= {"rank": f"{row.rank:02d}", "pareto front": "yes" if row.on_front else "no"}
        tags["beats ridge"] = {True: "yes", False: "no", None: "not compared"}[row.beats_ridge]
    if candidate.key == board.choice.key:
        tags["chosen"] = board.choice.sentence
    if trained is not None and trained.energy is not None:
        tags |= {"energy.source": trained.energy.source or "none", "energy.meter": trained.energy.meter}
    if candidate.scored is not None:
        tags |= {f"source.{kpi}": source for kpi, source in candidate.scored.sources.items()}
    return tags


def candidate_params(candidate: Candidate) -> dict[str, str]:
    """The candidate's hyper-parameters, dotted."""
    trained = candidate.trained
    if trained is None:
        return {"model": candidate.key}
    seen = ("inputs", "history", "horizon", "nodes", "features", "targets", "known", "lags")
    content = {
        "model": trained.model,
        "preset": trained.preset,
        "seed": trained.seed,
        "parameters": trained.parameters,
        "windows": trained.windows,
        "trials": trained.trials or None,
        "warm_start": trained.warm_start,
        "problem": {key: trained.problem[key] for key in seen if key in trained.problem},
        "options": trained.options,
        "settings": trained.settings,
    }
    return dict(flat(content))


def experiment_note(record: Record) -> str:
    """Description of an experiment (Markdown)."""
    board, schema = record.board, record.schema
    return (
        f"Forecasts of **{', '.join(board.targets)}** ({board.unit}) on data set **{board.data.dataset}**: {board.history} steps of "
        f"{exact(schema.cadence_s, 's')} in, {board.horizon} out, {board.data.sites} sites. A run is a benchmark; nested in it "
        f"are its candidates.\n\n{schema.attribution} · {schema.licence}"
    )


def run_note(record: Record) -> str:
    """Description of a benchmark's run (Markdown): the choice and the leaderboard."""
    return f"**{record.board.choice.sentence}**\n\n{markdown_table(record.board)}"


def dataset_input(record: Record) -> DatasetInput:
    """The panel as MLflow's data set: named, with the DVC hash as its digest."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.types import ColSpec, DataType, Schema

    data, schema = record.board.data, record.schema
    source = CodeDatasetSource(tags={"dvc": data.hash, "panel": f"data/panels/{data.dataset}", "licence": schema.licence})
    columns = Schema([ColSpec(DataType.float, name=f"{f.name} [{f.unit}]") for f in schema.features])
    content = MetaDataset(source, name=data.dataset, digest=data.hash[:_DIGEST], schema=columns).to_dict()
    profile = {"rows": data.rows, "sites": data.sites, "first": data.first, "last": data.last, "cadence_s": schema.cadence_s}
    dataset = Dataset(**{**content, "profile": json.dumps(profile)})
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", "benchmark")])


def _candidate_note(candidate: Candidate, reason: str) -> str:
    paper = f"\n\n{candidate.trained.paper}" if candidate.trained and candidate.trained.paper else ""
    return f"**{candidate.title}**: {reason}{paper}"
