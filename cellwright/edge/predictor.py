"""One bundle, loaded and warm: raw telemetry in, forecasts in raw units out. ONNX Runtime and NumPy only; torch is not needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from cellwright.bundle import media
from cellwright.bundle.export import open_session, run_session
from cellwright.bundle.keys import Trust
from cellwright.bundle.layout import read_layer, verify
from cellwright.bundle.manifest import Manifest
from cellwright.bundle.problem import MARK, VALID, ServedProblem
from cellwright.conformal import LEVELS, Conformal, restored
from cellwright.data.holidays import check as check_holidays
from cellwright.edge.answer import answer
from cellwright.edge.request import Asked, calendar, parse
from cellwright.errors import BundleError, UnknownName
from cellwright.results import Intervals

Precision = Literal["fp32", "int8"]
_WARM_RUNS = 3
_FILE = {"fp32": media.MODEL, "int8": media.MODEL_INT8}


class Predictor:
    """Answers requests (see request.py) from one bundle. Safe to call from several threads."""

    def __init__(
        self, manifest: Manifest, problem: ServedProblem, session: Any, precision: Precision, conformal: Conformal | None = None
    ) -> None:
        """`conformal`: what makes the intervals; bundles of before there were any have none."""
        self.manifest, self.problem, self.precision, self._session = manifest, problem, precision, session
        self.conformal = conformal
        self._index = {site: i for i, site in enumerate(problem.sites)}
        self._known = calendar(problem)
        self._offered = conformal.coverages if conformal else ()
        self.run_s = 0.0  # CPU time of one row, once it is warm

    @classmethod
    def load(cls, folder: Path, trust: Trust, *, precision: Precision = "fp32", threads: int = 1) -> Predictor:
        """Verify a bundle, open its model and run it once.

        Raises:
            BundleError: it does not verify, its problem is malformed, or it has no model of this precision.
        """
        manifest = verify(folder, trust)
        problem = read_problem(folder, manifest)
        session = open_session(read_layer(folder, manifest, _FILE[precision]), threads)
        predictor = cls(manifest, problem, session, precision, read_intervals(folder, manifest, problem))
        predictor.warm()
        return predictor

    def forecast(self, request: Any) -> dict[str, Any]:
        """Answer a request.

        Raises:
            RequestError: it is malformed, or names an unknown site.
        """
        return self.answer(asked := self.parse(request), self.run(asked))

    def parse(self, request: Any) -> Asked:
        """Check a request; raises RequestError."""
        return parse(request, self.problem, self._index, self._known, self._offered)

    def run(self, asked: Asked) -> np.ndarray:
        """(batch, horizon, outputs, targets, quantiles), raw units."""
        return run_session(self._session, asked.history, asked.known, asked.site)

    def answer(self, asked: Asked, forecast: np.ndarray) -> dict[str, Any]:
        """The answer as JSON."""
        m = self.manifest
        who = {"bundle": m.name, "version": m.version, "digest": m.digest, "precision": self.precision}
        return {**who, **answer(asked, forecast, self.problem, self._index, self.conformal)}

    def warm(self) -> None:
        """Run the model, so that the first request does not pay for its memory, and see how long one row takes.

        Raises:
            BundleError: problem.json and the model do not fit each other.
        """
        p = self.problem
        nodes = {"site": 1, "all": len(p.sites), "patch": len(p.neighbours[0]) if p.neighbours else 0}[p.inputs]
        zeros = np.zeros((1, p.history, nodes, len(p.features)), dtype=np.float32)
        try:
            asked = Asked(zeros, np.zeros((1, p.history + p.horizon, len(p.known)), np.float32), np.zeros(1, np.int64), (), 0)
            found = self.run(asked)
            self.run_s = min(_seconds(lambda: self.run(asked)) for _ in range(_WARM_RUNS))
        except Exception as error:  # onnxruntime raises classes of its own, one a status code
            raise BundleError(
                f"{self.manifest.name} {self.manifest.version}: its model does not fit problem.json: {error}"
            ) from error
        expected = (1, p.horizon, nodes if p.inputs == "all" else 1, len(p.targets), max(1, len(p.quantiles)))
        if found.shape != expected:
            raise BundleError(f"{self.manifest.name}: the model answers shape {found.shape}, problem.json says {expected}")


def _seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def read_problem(folder: Path, manifest: Manifest) -> ServedProblem:
    """The problem of a verified bundle.

    Raises:
        BundleError: it is malformed.
    """
    try:
        return _checked(ServedProblem.model_validate_json(read_layer(folder, manifest, media.PROBLEM)))
    except ValidationError as error:
        raise BundleError(f"{media.PROBLEM} of {manifest.name} {manifest.version} is malformed: {error}") from error


def read_intervals(folder: Path, manifest: Manifest, problem: ServedProblem) -> Conformal | None:
    """What makes the intervals of a verified bundle; None where it has none.

    Raises:
        BundleError: it is malformed, or of another problem.
    """
    if media.INTERVALS not in manifest.layers:
        return None
    where = f"{media.INTERVALS} of {manifest.name} {manifest.version}"
    try:
        found = restored(Intervals.model_validate_json(read_layer(folder, manifest, media.INTERVALS)))
    except ValueError as error:  # pydantic's errors are such
        raise BundleError(f"{where} is malformed: {error}") from error
    sites, targets = len(problem.sites), len(problem.targets)
    shapes = [a.shape for a in (found.offsets, found.usual.step, found.usual.load, found.low, found.high)]
    expected = [(len(LEVELS), problem.horizon, targets), (sites, targets), (sites, targets), (targets,), (targets,)]
    if shapes != expected or found.heads != problem.quantiles:
        raise BundleError(f"{where} does not fit {media.PROBLEM}: expected tables of shapes {expected}, found {shapes}")
    return found


def _checked(problem: ServedProblem) -> ServedProblem:
    """What the types alone do not say."""
    if (problem.inputs == "patch") != (problem.neighbours is not None):
        raise BundleError(f"{media.PROBLEM}: neighbours are given for patches and for nothing else")
    if problem.neighbours is not None and len(problem.neighbours) != len(problem.sites):
        raise BundleError(f"{media.PROBLEM}: {len(problem.neighbours)} neighbourhoods for {len(problem.sites)} sites")
    if problem.neighbours is not None:
        _check_table("neighbours", problem.neighbours, least=-1, sites=len(problem.sites))
    if problem.holidays:  # looked up now, so that no request waits for the tables to be read
        try:
            check_holidays(problem.holidays)
        except UnknownName as error:
            raise BundleError(f"{media.PROBLEM}: {error}") from error
    if bool(problem.means) != (problem.nearest is not None):
        raise BundleError(f"{media.PROBLEM}: nearest sites are given for means and for nothing else")
    if problem.nearest is not None and len(problem.nearest) != len(problem.sites):
        raise BundleError(f"{media.PROBLEM}: {len(problem.nearest)} rows of nearest sites for {len(problem.sites)} sites")
    if problem.nearest is not None:
        each = _check_table("nearest", problem.nearest, least=0, sites=len(problem.sites))
        if unknown := set(problem.means) - {f"{target}{MARK}{each}" for target in problem.targets}:
            raise BundleError(
                f"{media.PROBLEM}: '{min(unknown)}' is no mean of a target over the {each} nearest sites that are given"
            )
    if not set(problem.measured) <= set(problem.units) or (VALID in problem.features and problem.features[-1] != VALID):
        raise BundleError(f"{media.PROBLEM}: a feature lacks its unit, or 'valid' is not the last one")
    return problem


def _check_table(name: str, table: tuple[tuple[int, ...], ...], *, least: int, sites: int) -> int:
    """Length of the rows of a table of sites' positions, each of which is a site, or -1 where `least` allows for none.

    Raises:
        BundleError: rows of several lengths or of none, or a position that no site has.
    """
    lengths = sorted({len(row) for row in table})
    if len(lengths) != 1 or not lengths[0]:
        raise BundleError(f"{media.PROBLEM}: {name}: expected rows of one length, found lengths {lengths}; publish it again")
    low, high = min(map(min, table)), max(map(max, table))
    if low < least or high >= sites:
        raise BundleError(
            f"{media.PROBLEM}: {name}: expected positions from {least} to {sites - 1}, found {low} to {high}; publish it again"
        )
    return lengths[0]
