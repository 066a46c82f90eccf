"""Where every file of a run lies: the only place that knows paths."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cellwright.errors import WorkspaceError


def find_root(start: Path | None = None) -> Path:
    """The project's folder: the nearest one upwards that holds `params.yaml`, or $CELLWRIGHT_ROOT.

    Raises:
        WorkspaceError: there is none.
    """
    if given := os.environ.get("CELLWRIGHT_ROOT"):
        return Path(given).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise WorkspaceError(f"no params.yaml in {here} or above it; run this inside a Cellwright project, or set CELLWRIGHT_ROOT")


def _folder_name(key: str) -> str:
    """A candidate's key as one safe name; a path gives its file's name and a digest, so that two of one name stay apart."""
    plain = key.replace(":", "-")
    if "/" not in key and not key.partition(":")[0].endswith(".py"):
        return plain
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", plain.rpartition("/")[2].replace(".py", ""))
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Workspace:
    """The folders of one project and, once `run` is set, of one run."""

    root: Path
    run: str = "repro"

    # data: shared by all runs, versioned by DVC
    @property
    def catalogue(self) -> Path:
        return self.root / "data" / "catalogue.yaml"

    def raw(self, dataset: str) -> Path:
        """Folder of the upstream files of a data set, as ingested."""
        return self.root / "data" / "raw" / dataset

    def panel(self, dataset: str) -> Path:
        """Folder of the normalised panel: the run's own, if it holds one, else the shared one."""
        held = self.held_panel(dataset)
        return held if held.is_dir() else self.root / "data" / "panels" / dataset

    def held_panel(self, dataset: str) -> Path:
        """The panel as it was when the run began: links, so that a newer version of the data does not change a run."""
        return self.run_folder / "panel" / dataset

    def data_version(self, dataset: str) -> Path:
        """What is known of a panel that the run holds beside its own, whose version is in data.json."""
        return self.run_folder / f"data-{dataset}.json"

    def validation(self, dataset: str) -> Path:
        """Folder of the validation results: results.json, index.html."""
        return self.root / "data" / "validation" / dataset

    # one run
    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def run_folder(self) -> Path:
        return self.artifacts / self.run

    def candidate(self, key: str) -> Path:
        """Folder of one candidate: candidate.json, forecaster.safetensors, history.jsonl, checkpoints/."""
        return self.run_folder / "candidates" / _folder_name(key)

    @property
    def scores(self) -> Path:
        """Folder of the scores: <candidate>.json and <candidate>.npz each."""
        return self.run_folder / "scores"

    def score(self, key: str, suffix: str = ".json") -> Path:
        """A candidate's score (".json") or the forecasts it rests on (".npz")."""
        return self.scores / f"{self.candidate(key).name}{suffix}"

    def failed_score(self, key: str) -> Path:
        """Why a candidate could not be scored (results.Failure); not there if it was."""
        return self.scores / "failed" / self.score(key).name

    def onnx(self, key: str) -> Path:
        """A candidate's fp32 ONNX, exported when it was scored (its own folder is the output of training alone)."""
        return self.scores / "onnx" / f"{self.candidate(key).name}.onnx"

    @property
    def leaderboard(self) -> Path:
        return self.run_folder / "leaderboard.json"

    @property
    def scorecard(self) -> Path:
        return self.run_folder / "scorecard.json"

    @property
    def all_probes(self) -> Path:
        """Folder of the finalists' probes."""
        return self.run_folder / "probes"

    def probes(self, key: str) -> Path:
        """Folder of what was found out about a finalist: <probe>.json each, and retrained/<name>/."""
        return self.all_probes / self.candidate(key).name

    @property
    def report(self) -> Path:
        return self.run_folder / "report.html"

    @property
    def registration(self) -> Path:
        return self.run_folder / "registration.json"

    @property
    def bundle(self) -> Path:
        """OCI image layout of the champion's bundle."""
        return self.run_folder / "bundle"

    # state that outlives runs; never in git
    @property
    def state(self) -> Path:
        return self.root / ".cellwright"

    def downloads(self, dataset: str) -> Path:
        """Folder of downloads that are under way; they resume from here."""
        return self.state / "downloads" / dataset

    @property
    def mlflow_uri(self) -> str:
        """MLflow's store: $MLFLOW_TRACKING_URI, or SQLite in the state folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.state / "mlflow-artifacts"

    @property
    def optuna_uri(self) -> str:
        return f"sqlite:///{self.state / 'optuna.db'}"

    @property
    def federation(self) -> Path:
        """Folder of the federations' state: FMLMS databases, keys, certificates, the owners' panels."""
        return self.state / "federation"

    def owners(self, dataset: str, by: str) -> Path:
        """Folder of the owners' own panels, cut from a data set: `by` says how."""
        return self.federation / "owners" / dataset / by

    def fmlms_uri(self, dataset: str) -> str:
        """The FMLMS's store of a data set, SQLite, where params.yaml names no other."""
        return f"sqlite:///{self.federation / f'{dataset}.db'}"

    @property
    def keys(self) -> Path:
        """Folder of the Ed25519 signing key and the public keys that are trusted."""
        return self.state / "keys"

    @property
    def qos_journal(self) -> Path:
        """The QoS sessions that were asked for and are not released yet (SQLite)."""
        return self.state / "qos.db"

    @property
    def network(self) -> Path:
        """Where the simulated network of this project runs, and its tokens; there while it does."""
        return self.state / "network.json"

    @property
    def rollouts(self) -> Path:
        """Folder of the rollouts' states: <model>.json each."""
        return self.state / "rollouts"

    @property
    def published(self) -> Path:
        """Folder that the edge server offers: one OCI layout a published bundle."""
        return self.state / "published"

    @property
    def hub(self) -> Path:
        """Folder of the hub: its database, blobs, uploads and signing key."""
        return self.state / "hub"

    @property
    def device(self) -> Path:
        """Folder of the local device client: fetched bundles and the active one."""
        return self.state / "device"
