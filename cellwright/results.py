"""The named results that travel between steps, as JSON files of a run. One reader and one writer for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from cellwright.errors import CellwrightError
from cellwright.files import write_text

Source = Literal["measured", "modelled", "constant"]


class Result(BaseModel):
    """A frozen result that knows how to be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def save(self, path: Path) -> Self:
        """Write as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CellwrightError: the file is missing or of another form.
        """
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise CellwrightError(f"{path} is missing; run the step that writes it first") from None
        except ValueError as error:
            raise CellwrightError(f"{path} is not a {cls.__name__}: {error}") from error


class DataVersion(Result):
    """Which data a result was made from."""

    dataset: str
    hash: str  # DVC's hash of the normalised panel (md5, with `.dir` for folders), or its equal computed by the same rule
    rows: int
    sites: int
    first: str  # ISO 8601, or "row 0" on a relative clock
    last: str


class Ingested(Result):
    """What `ingest` brought to the raw folder."""

    dataset: str
    folder: str
    files: int
    raw_bytes: int
    new: list[str]  # files that were not there before
    grown: list[str]  # files that were longer than before
    last: str | None  # newest time stamp of a growing source, ISO 8601


class FeatureCounts(Result):
    """What was done to the values of one feature; the counts are values (a site at a time)."""

    values: int
    filled: int  # in gaps of at most max_gap, with the last value
    masked: int  # in longer gaps: missing
    outage: int
    outlier: int


class Normalised(Result):
    """What `normalise` did; `report.json` in the panel's folder."""

    dataset: str
    rows: int
    sites: int
    segments: int
    first: str  # ISO 8601, or "row 0" on a relative clock
    last: str
    duplicates_equal: int  # rows that said the same again: dropped
    duplicates_conflicting: int  # rows that said something else: the last one counts
    not_finite: int  # values of ±infinity: missing
    features: dict[str, FeatureCounts]


class Check(Result):
    """One expectation of a data set, held against its panel."""

    expectation: str  # Great Expectations' type
    title: str
    feature: str | None
    limit: str  # in words, with the unit
    passed: bool
    what: str  # what is counted: "sites", "days", "features" …
    count: int  # of those that broke it
    of: int
    examples: list[str]  # the first of them
    observed: str  # the value nearest to the limit, or furthest beyond it


class Validated(Result):
    """What `validate` found; results.json in the validation folder, beside index.html."""

    dataset: str
    passed: bool
    rows: int
    sites: int
    first: str
    last: str
    compared_with: str | None  # last row of the accepted version that the shift is measured against; None: there is none
    not_checked: list[str]  # what was not, and why
    checks: list[Check]

    def __str__(self) -> str:
        held = sum(check.passed for check in self.checks)
        return f"{self.dataset}: {held} of {len(self.checks)} expectations held on {self.rows:,} rows × {self.sites:,} sites"


class Reading(Result):
    """Energy of one component."""

    energy_j: float | None  # None: no meter and no model
    source: Source | None


class EnergyReading(Result):
    """Energy of a stretch of work, idle baseline subtracted; CPU, RAM and GPU apart."""

    cpu: Reading
    ram: Reading
    gpu: Reading
    duration_s: float
    cpu_s: float  # CPU-seconds of the process and its children
    idle_w: float | None  # what was subtracted
    co2_g: float | None
    shared: bool  # others ran at the same time: apportioned by CPU-seconds, hence modelled
    meter: str  # in words: "CodeCarbon 3.3.2, no RAPL: constant TDP per thread"

    @property
    def energy_j(self) -> float | None:
        """Sum of what is known; None if nothing is."""
        known = [r.energy_j for r in (self.cpu, self.ram, self.gpu) if r.energy_j is not None]
        return sum(known) if known else None

    @property
    def source(self) -> Source | None:
        """The weakest source among the parts."""
        order: tuple[Source, ...] = ("constant", "modelled", "measured")
        present = {r.source for r in (self.cpu, self.ram, self.gpu) if r.source is not None}
        return next((s for s in order if s in present), None)


class RungFigure(Result):
    """How good a candidate was where all paused to be compared (successive halving)."""

    rung: int  # 0 is the first
    after_s: float  # training seconds
    validation_mae: float  # raw units, on the windows on which all were compared


class Trained(Result):
    """One candidate after training: `candidate.json` in its folder, beside forecaster.safetensors and history.jsonl."""

    key: str  # as in train.models: "lstm", "vmrnn:b"
    model: str
    preset: str | None
    title: str
    paper: str
    problem: dict[str, Any]  # the fields of models._contract.Problem
    options: dict[str, Any]
    settings: dict[str, Any]  # learning rate, loss, scaler … as used
    status: Literal["converged", "budget", "max_epochs", "closed form", "halved", "failed"]
    reason: str  # one sentence: why training ended, or the error
    epochs: int
    windows: int  # training windows there are
    parameters: int
    train_s: float
    cpu_s: float
    peak_memory_bytes: int | None
    energy: EnergyReading | None
    seed: int
    validation_loss: float | None  # best, normalised units
    warm_start: str | None  # registered version it started from
    resumed: int  # times it continued from a checkpoint
    data: DataVersion
    trials: int = 0
    notes: dict[str, str] = {}  # what a reader of the results should know of the network: a padded patch, fixed periods
    train_rows: tuple[int, int] | None = None  # [start, stop) it learnt from, its warm start's with them; None: not recorded
    rungs: tuple[RungFigure, ...] = ()  # where it was compared with the others, if candidates are halved


class Interval(Result):
    """Paired difference of MAE to another candidate: mean and 95 % interval of a block bootstrap."""

    other: str
    difference: float  # this minus other, in the target's unit; below 0: this is better
    low: float
    high: float
    block_steps: int
    samples: int

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


class Intervals(Result):
    """What makes predictive quantiles of a candidate's forecasts; computed and applied in cellwright/conformal.py."""

    levels: tuple[float, ...]
    heads: tuple[float, ...]  # levels of the network's own quantiles; empty for a point model
    offsets: list[list[list[float | None]]]  # (level, step, target), in units of a site's scale; None: unbounded
    usual_step: list[list[float]]  # (site, target) mean |change| from one step to the next, on the training rows
    usual_load: list[list[float]]  # (site, target) mean value there
    low: list[float | None]  # (target) physical bounds
    high: list[float | None]
    windows: int  # of the validation span, that it is calibrated on


class Calibration(Result):
    """How often the truth lay where the predictive quantiles said, on one span."""

    levels: tuple[float, ...]
    shares: tuple[float, ...]  # of the truth between two neighbouring levels, below the first and above the last included
    coverage: dict[str, float]  # nominal coverage of a central interval ("0.8") -> observed


class Scored(Result):
    """One candidate's KPIs. Errors of a span are averaged over windows, sites, steps and targets."""

    key: str
    title: str
    status: str
    reason: str
    validation: dict[str, float | None]  # KPI -> value
    test: dict[str, float | None]
    cost: dict[str, float | None]  # latency, size, energy … (span-free KPIs)
    sources: dict[str, str]  # KPI -> source, where it is not measured
    mae_by_step: list[float]
    mae_by_site: list[float | None]
    validation_pairs: list[Interval]
    test_pairs: list[Interval]
    digest: str = ""  # of what was scored and how: an equal one is not scored again
    stride: int = 1  # every n-th window of a span was forecast
    intervals: Intervals | None = None  # calibrated on the whole validation span
    validation_calibration: Calibration | None = None  # cross-fitted
    test_calibration: Calibration | None = None


class Row(Result):
    """One line of the leaderboard."""

    rank: int
    key: str
    title: str
    score: float  # weighted, normalised; 1 is best
    status: str
    beats_ridge: bool | None
    on_front: bool
    similar_to_champion: bool
    kpis: dict[str, float | None]  # test span and cost KPIs
    validation_mae: float | None
    coverage: dict[str, float] = {}  # test span: nominal coverage of a central interval ("0.8") -> observed


class Choice(Result):
    """The champion and why."""

    key: str
    sentence: str
    similar: list[str]  # candidates of similar accuracy that were passed over
    decided_by: Literal["accuracy", "energy", "cpu seconds"]
    block_steps: int


class Failure(Result):
    """A candidate that has no score."""

    key: str
    reason: str


class Leaderboard(Result):
    """leaderboard.json of a run."""

    run: str
    data: DataVersion
    targets: list[str]
    unit: str
    history: int
    horizon: int
    test_windows: int
    noise_floor: dict[str, float] | None
    rows: list[Row]
    failures: list[Failure]
    choice: Choice
    kpi_titles: dict[str, str]
    kpi_units: dict[str, str]
    kpi_lower_is_better: dict[str, bool]
    total_energy_j: float | None
    energy_source: str | None
    total_s: float
    stride: int = 1  # every n-th window of a span was forecast and scored
    kpi_groups: dict[str, str] = {}  # "accuracy", "calibration", "fairness", "cost"


class Importance(Result):
    """How much a finalist's forecasts lean on each of its inputs, seen by feature, by site or by step of the history."""

    how: Literal["permutation", "gradients"]
    of: Literal["feature", "site", "step"]
    names: tuple[str, ...]
    values: tuple[float, ...]  # permutation: relative growth of MAE without it; gradients: share of the absolute attribution


class Probed(Result):
    """One finalist's dear KPIs."""

    key: str
    title: str
    kpis: dict[str, float | None]
    reasons: dict[str, str]  # KPI -> why it has no value
    notes: dict[str, str]  # KPI -> what its value rests on
    importance: tuple[Importance, ...]


class Scorecard(Result):
    """scorecard.json of a run."""

    run: str
    windows: int  # of the test span, that each finalist was probed on at most
    finalists: list[Probed]
    kpi_titles: dict[str, str]
    kpi_units: dict[str, str]
    kpi_lower_is_better: dict[str, bool]
    kpi_groups: dict[str, str]
    kpi_plain: dict[str, str]  # what it says, for people


class Registered(Result):
    """What MLflow knows of a run."""

    experiment: str
    run_id: str  # the benchmark's
    model_name: str
    version: str | None  # MLflow's number; None: nothing was registered
    semantic: str | None
    champion: bool  # whether the alias moved
    reason: str
    awaits_rollout: bool = False  # it won, and becomes champion when its rollout promotes it


class Published(Result):
    """A bundle."""

    name: str
    semantic: str
    digest: str  # sha256 of the OCI manifest
    path: str
    model_bytes: int
    int8_bytes: int | None
    int8_offered: bool
    mae_fp32: float
    mae_int8: float | None
    parity: float  # largest relative difference to torch
    int8_reason: str = ""  # what became of the INT8 model, in words
    latest: bool = True  # whether the edge serves this version


class SiteDrift(Result):
    """A change of a forecast's error at one site."""

    site: str
    time: str  # when it was noticed
    size: float  # relative: +0.5 is half as much error again
    began: str | None = None  # when it began, as far as the detector can tell


class Observation(Result):
    """One run of the monitor."""

    dataset: str
    version: str  # of the champion
    first_row: int  # rows [first_row, stop_row) were released
    stop_row: int
    first: str
    stop: str
    mae: float  # one step ahead, in the target's unit
    usual_mae: float  # what is usual at these hours and sites
    drifts: list[SiteDrift]  # found in this run
    pending: list[SiteDrift]  # nothing was done about these yet
    retrain: bool
    reason: str


class Figure(Result):
    """Mean of a KPI over seeds, and its standard deviation (None: one seed)."""

    mean: float
    deviation: float | None


class TableRow(Result):
    """One model in one part of a table."""

    key: str
    title: str
    inputs: str
    nodes: int
    seeds: list[int]
    validation_mae: Figure
    kpis: dict[str, Figure | None]  # errors on the test span over the seeds; costs of the first seed
    statuses: list[str]  # how each seed's training ended
    budget_s: float
    train_s: float  # mean
    epochs: float  # mean
    windows_per_epoch: int | None  # None: all there are
    windows_per_s: float | None  # training windows of one site, first seed; None: no gradient descent
    to_ridge: Interval | None  # paired difference on the test span, first seed
    notes: dict[str, str]


class TablePart(Result):
    """One data set of a table, best mean validation error first."""

    title: str
    data: DataVersion
    unit: str
    history: int
    horizon: int
    test_windows: int
    runs: list[str]
    seeds: list[int]
    rows: list[TableRow]
    failures: list[Failure]
    best_key: str  # the single model of the lowest validation MAE, over all seeds
    best_seed: int
    best_validation_mae: float
    best_test: dict[str, float | None]
    best_to_ridge: Interval | None
    kpi_titles: dict[str, str]
    kpi_units: dict[str, str]
    kpi_lower_is_better: dict[str, bool]
    wall_s: float


class ZooTable(Result):
    """All parts of a recipe's table."""

    title: str
    about: str
    date: str
    machine: str
    command: str
    columns: list[str]
    minutes: int | None
    parts: list[TablePart]

    @property
    def wall_s(self) -> float:
        """Training and scoring of everything, interruptions left out."""
        return sum(part.wall_s for part in self.parts)
