"""A benchmark as MLflow sees it: one parent run, a nested run for each candidate, written in a few batches.

Everything is keyed by the run's fingerprint, so that registering the same leaderboard again continues where the last attempt ended
and writes nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellwright.params import Params
from cellwright.registry.describe import candidate_params, candidate_tags, dataset_input, experiment_note, lineage_tags, run_note
from cellwright.registry.names import experiment_name
from cellwright.registry.store import artifact_location
from cellwright.registry.trace import Point, epoch_points, flat, kpi_points, span_of
from cellwright.report.record import Candidate, Record
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

FINGERPRINT = "cellwright.fingerprint"
CANDIDATE = "candidate"
FORECASTER_FILES = ("candidate.json", "forecaster.safetensors", "history.jsonl")
_SECTIONS = ("problem", "split", "train", "search", "score", "rank")  # of params.yaml, shown on the benchmark's run
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100  # MLflow's limits
_FINAL = ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Logged:
    """Where a benchmark lies in MLflow."""

    experiment: str
    experiment_id: str
    run_id: str
    fingerprint: str
    tags: dict[str, str]  # lineage, as on every run of it
    candidates: dict[str, str]  # candidate -> run id

    @property
    def own_tags(self) -> dict[str, str]:
        """The lineage without MLflow's own names for it."""
        return {key: value for key, value in self.tags.items() if not key.startswith("mlflow.")}


def log_benchmark(client: MlflowClient, params: Params, ws: Workspace, record: Record) -> Logged:
    """Write the benchmark's run and its candidates' runs; what is there already is left as it is."""
    board = record.board
    name = experiment_name(board.data.dataset, board.targets, board.history, board.horizon)
    writer = _Writer(client, _experiment(client, ws, name, record), record, lineage_tags(ws, record), dataset_input(record))
    mark = fingerprint(ws)
    run_id, finished = writer.parent(mark)
    candidates = writer.candidates(run_id)
    if not finished:
        writer.finish_parent(run_id, params, ws)
    return Logged(name, writer.experiment_id, run_id, mark, writer.tags, candidates)


def fingerprint(ws: Workspace) -> str:
    """Which run this is: its name and its leaderboard's content (under DVC the name alone is always `repro`)."""
    return hashlib.sha256(ws.run.encode() + b"\0" + ws.leaderboard.read_bytes()).hexdigest()[:16]


def write_points(client: MlflowClient, run_id: str, points: Iterable[Point], model_id: str | None = None) -> None:
    """Metrics in batches; MLflow drops those it has already."""
    from mlflow.entities import Metric

    metrics = [Metric(p.name, p.value, p.time_ms, p.step, model_id=model_id, run_id=run_id) for p in points]
    for first in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[first : first + _METRICS_AT_ONCE])


def _experiment(client: MlflowClient, ws: Workspace, name: str, record: Record) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        tags = {"mlflow.note.content": experiment_note(record), "mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=artifact_location(ws), tags=tags))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


@dataclass(frozen=True)
class _Writer:
    """Writes the runs of one benchmark."""

    client: MlflowClient
    experiment_id: str
    record: Record
    tags: dict[str, str]
    dataset: DatasetInput

    def parent(self, mark: str) -> tuple[str, bool]:
        """(id of the benchmark's run, whether it is finished); made if it is not there."""
        found = self._search(f"tags.`{FINGERPRINT}` = '{mark}' and tags.`kind` = 'benchmark'")
        if found:
            return str(found[0].info.run_id), found[0].info.status in _FINAL
        start = min(_span(candidate)[0] for candidate in self.record.candidates)
        own = {FINGERPRINT: mark, "kind": "benchmark", "mlflow.note.content": run_note(self.record)}
        return self._create(self.record.board.run, start, own), False

    def candidates(self, parent: str) -> dict[str, str]:
        """Run id of each candidate."""
        there = {run.data.tags.get(CANDIDATE): run for run in self._search(f"tags.`mlflow.parentRunId` = '{parent}'")}
        return {c.key: self._candidate(parent, c, there.get(c.key)) for c in self.record.candidates}

    def finish_parent(self, run_id: str, params: Params, ws: Workspace) -> None:
        """What concerns the benchmark as a whole; its KPIs are those of the candidate that was chosen."""
        end_ms = max(_span(candidate)[1] for candidate in self.record.candidates)
        settings = {"dataset": params.dataset, **params.model_dump(mode="json", by_alias=True, include=set(_SECTIONS))}
        self._params(run_id, dict(flat(settings)))
        self.client.log_inputs(run_id, datasets=[self.dataset])
        self._points(run_id, (p for p in kpi_points(self.record.champion, end_ms) if not p.name.startswith("training/")))
        total = {"benchmark/energy_j": self.record.board.total_energy_j, "benchmark/seconds": self.record.board.total_s}
        self._points(run_id, (Point(name, value, end_ms) for name, value in total.items() if value is not None))
        self.client.log_dict(run_id, params.model_dump(mode="json", by_alias=True), "params.json")
        for path in (ws.leaderboard, ws.report):
            if path.is_file():
                self.client.log_artifact(run_id, str(path))
        self.client.set_terminated(run_id, "FINISHED", end_time=end_ms)

    def _candidate(self, parent: str, candidate: Candidate, there: Run | None) -> str:
        if there is not None and there.info.status in _FINAL:
            return str(there.info.run_id)
        start, end = _span(candidate)
        own = {**candidate_tags(candidate, self.record.board), "mlflow.parentRunId": parent, "kind": "candidate"}
        run_id = str(there.info.run_id) if there is not None else self._create(candidate.title, start, own)
        self.client.log_inputs(run_id, datasets=[self.dataset])
        self._params(run_id, candidate_params(candidate))
        self._points(run_id, [*epoch_points(candidate.history, start), *kpi_points(candidate, end)])
        for name in FORECASTER_FILES:
            if (candidate.folder / name).is_file():
                self.client.log_artifact(run_id, str(candidate.folder / name), "forecaster")
        self.client.set_terminated(run_id, "FAILED" if candidate.failure else "FINISHED", end_time=end)
        return run_id

    def _search(self, query: str) -> list[Run]:
        return list(self.client.search_runs([self.experiment_id], filter_string=query, max_results=1000))

    def _create(self, name: str, start_ms: int, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment_id, start_time=start_ms, tags={**self.tags, **tags}, run_name=name)
        return str(run.info.run_id)

    def _params(self, run_id: str, content: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in content.items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=params[first : first + _PARAMS_AT_ONCE])

    def _points(self, run_id: str, points: Iterable[Point]) -> None:
        write_points(self.client, run_id, points)


def _span(candidate: Candidate) -> tuple[int, int]:
    card = candidate.folder / "candidate.json"
    return span_of(candidate.trained, card if card.is_file() else None)
