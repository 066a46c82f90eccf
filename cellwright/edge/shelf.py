"""What an edge serves: every published bundle that verifies, and a warm model of each name's latest version.

A snapshot is replaced as a whole when something was published or taken back; a request keeps the snapshot it began with, so no
request ever sees half a change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellwright.bundle import media, store
from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import INDEX, LAYOUT, verify
from cellwright.bundle.manifest import Manifest
from cellwright.edge.predictor import Precision, Predictor, read_intervals, read_problem
from cellwright.edge.request import RequestError
from cellwright.errors import BundleError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelved:
    """A verified bundle and the files of it that may be asked for: path -> (SHA-256, media type)."""

    folder: Path
    manifest: Manifest
    files: Mapping[str, tuple[str, str]]
    summary: Mapping[str, Any]  # of its problem; empty for a file bundle
    stamp: tuple[int, int]  # of the folder, to notice that it was replaced

    def described(self) -> dict[str, Any]:
        """As `GET /v1/bundles` shows it."""
        m = self.manifest
        layers = {name: {"digest": d.digest, "bytes": d.size} for name, d in m.layers.items()}
        who = {"version": m.version, "digest": m.digest, "signed_by": m.signed_by, "format": m.format}
        return {**who, "problem": dict(self.summary), "layers": layers}


@dataclass(frozen=True)
class Tried:
    """A version under trial and its model."""

    trial: store.Trial
    predictor: Predictor


@dataclass(frozen=True)
class Snapshot:
    """Bundles by name and version, the latest version of each name, its model and one under trial, what was refused and why."""

    bundles: Mapping[str, Mapping[str, Shelved]] = field(default_factory=dict)
    latest: Mapping[str, str] = field(default_factory=dict)
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    trials: Mapping[str, Tried] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def only(self, allowed: Callable[[str], bool]) -> Snapshot:
        """What of it bears an allowed name, as if there were nothing else."""
        bundles = {name: found for name, found in self.bundles.items() if allowed(name)}
        latest = {name: found for name, found in self.latest.items() if allowed(name)}
        predictors = {name: found for name, found in self.predictors.items() if allowed(name)}
        trials = {name: found for name, found in self.trials.items() if allowed(name)}
        return Snapshot(bundles, latest, predictors, trials)

    def find(self, name: str, version: str) -> Shelved:
        """A bundle; `version` may be "latest". Raises RequestError (404)."""
        versions = self.bundles.get(name)
        if not versions:
            raise RequestError(404, f"no bundle '{name[:80]}' is served here; there are: {', '.join(self.bundles) or 'none'}")
        wanted = self.latest.get(name, "") if version == "latest" else version
        if wanted not in versions:
            raise RequestError(404, f"{name} has no version '{version[:80]}'; there are: {', '.join(versions)}")
        return versions[wanted]

    def predictor(self, name: Any) -> Predictor:
        """The model of a name; of the only one, if none is named. Raises RequestError (400, 404)."""
        known = ", ".join(self.predictors) or "none"
        if name is None:
            if len(self.predictors) == 1:
                return next(iter(self.predictors.values()))
            status, what = (
                (400, "several bundles are served here: name one under 'bundle'")
                if self.predictors
                else (404, "nothing is served")
            )
            raise RequestError(status, f"{what}; there are: {known}")
        if not isinstance(name, str):
            raise RequestError(400, "'bundle' must be a name")
        if name not in self.predictors:
            raise RequestError(404, f"no bundle '{name[:80]}' is served here; there are: {known}")
        return self.predictors[name]


class Shelf:
    """Keeps the snapshot in step with the store. With precision int8, bundles that offer no INT8 model forecast with fp32."""

    def __init__(self, folder: Path, trust: Trust, *, precision: Precision = "fp32") -> None:
        self._folder, self._trust, self._precision = folder, trust, precision
        self._stamp: object = None
        self.snapshot = Snapshot()

    def believe(self, trust: Trust) -> None:
        """Trust these keys from the next `refresh` on; what none of them signed is served no more."""
        if trust.keys() != self._trust.keys():
            self._trust, self._stamp = trust, None

    def refresh(self) -> bool:
        """Look for changes and take them over; returns whether there were any. Called by one thread at a time."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self.snapshot = self._built(self.snapshot)
        self._stamp = stamp
        return True

    def _stamps(self) -> object:
        names = store.names(self._folder)
        pointers = [(n, [_stamp(self._folder / n / file) for file in ("latest.json", "trial.json")]) for n in names]
        return pointers, [(n, v, _stamp(self._folder / n / v)) for n in names for v in store.versions(self._folder, n)]

    def _built(self, old: Snapshot) -> Snapshot:
        refused: dict[str, str] = {}
        bundles: dict[str, dict[str, Shelved]] = {}
        latest: dict[str, str] = {}
        predictors: dict[str, Predictor] = {}
        trials: dict[str, Tried] = {}
        for name in store.names(self._folder):
            versions = self._versions(name, old.bundles.get(name, {}), refused)
            warm = _Warm.of(old, name)
            version, model = self._active(name, versions, warm, refused)
            if versions:
                bundles[name] = versions
            if version:
                latest[name] = version
            if model:
                predictors[name] = model
                if tried := self._tried(name, versions, model, warm, refused):
                    trials[name] = tried
        for what, reason in refused.items():
            log.error("not served: %s: %s", what, reason)
        return Snapshot(bundles, latest, predictors, trials, refused)

    def _versions(self, name: str, old: Mapping[str, Shelved], refused: dict[str, str]) -> dict[str, Shelved]:
        found = {}
        for version in store.versions(self._folder, name):
            folder = self._folder / name / version
            known = old.get(version)
            try:
                same = known is not None and known.stamp == _stamp(folder) and known.manifest.signed_by in self._trust
                found[version] = known if known and same else _shelve(folder, self._trust, name, version)
            except BundleError as error:
                refused[f"{name} {version}"] = str(error)
        return found

    def _active(
        self, name: str, versions: Mapping[str, Shelved], warm: _Warm, refused: dict[str, str]
    ) -> tuple[str | None, Predictor | None]:
        """The latest version and its model. Where the store's latest cannot be served, the model before it goes on, unless it
        was taken back."""
        before = warm.active
        there = before is not None and before.manifest.version in store.versions(self._folder, name)
        kept = before if before and there and before.manifest.signed_by in self._trust else None
        try:
            now = store.pointer(self._folder, name)
        except BundleError as error:
            refused[name] = str(error)
        else:
            if now is None:
                return None, None
            if now.version in versions:
                return now.version, self._predictor(versions[now.version], warm, refused) or _runs(versions[now.version], kept)
        return (kept.manifest.version if kept and kept.manifest.version in versions else None), kept

    def _tried(
        self, name: str, versions: Mapping[str, Shelved], champion: Predictor, warm: _Warm, refused: dict[str, str]
    ) -> Tried | None:
        """The trial of a name and its model; none where it cannot be served, and the champion answers all."""
        try:
            trial = store.trial(self._folder, name)
        except BundleError as error:
            refused[f"{name} (trial)"] = str(error)
            return None
        if trial is None or trial.version not in versions or trial.version == champion.manifest.version:
            return None
        model = self._predictor(versions[trial.version], warm, refused)
        return Tried(trial, model) if model and model.manifest.digest == trial.digest else None

    def _predictor(self, shelved: Shelved, warm: _Warm, refused: dict[str, str]) -> Predictor | None:
        """The model of a version; None where it has none, or cannot be run (`refused` then says why)."""
        if not shelved.manifest.forecasts:
            return None  # for download only
        if held := warm.of_digest(shelved.manifest.digest):
            return held
        try:
            small = self._precision == "int8" and media.MODEL_INT8 in shelved.manifest.layers
            return Predictor.load(shelved.folder, self._trust, precision="int8" if small else "fp32")
        except BundleError as error:
            refused[f"{shelved.manifest.name} {shelved.manifest.version}"] = str(error)
            return None


@dataclass(frozen=True)
class _Warm:
    """Models of a name that a snapshot has ready."""

    active: Predictor | None
    tried: Predictor | None

    @classmethod
    def of(cls, snapshot: Snapshot, name: str) -> _Warm:
        tried = snapshot.trials.get(name)
        return cls(snapshot.predictors.get(name), tried.predictor if tried else None)

    def of_digest(self, digest: str) -> Predictor | None:
        return next((p for p in (self.active, self.tried) if p is not None and p.manifest.digest == digest), None)


def _runs(shelved: Shelved, kept: Predictor | None) -> Predictor | None:
    """Whoever forecasts where a latest version has no model of its own: nobody for a file bundle, else the one before it."""
    return kept if shelved.manifest.forecasts else None


def _shelve(folder: Path, trust: Trust, name: str, version: str) -> Shelved:
    stamp = _stamp(folder)
    manifest = verify(folder, trust)
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(f"{folder} holds {manifest.name} {manifest.version}, expected {name} {version}; publish it again")
    files = {d.blob: (d.hex, d.mediaType) for d in manifest.blobs}
    for document in (LAYOUT, INDEX):
        files[document] = (_sha256(folder / document), "application/json")
    return Shelved(folder, manifest, files, _summary(folder, manifest) if manifest.forecasts else {}, stamp)


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    problem = read_problem(folder, manifest)
    conformal = read_intervals(folder, manifest, problem)
    return problem.summary() | {"intervals": list(conformal.coverages) if conformal else []}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
