"""params.yaml, typed: the whole configuration. One section a step, named as the step; unknown keys are refused.

`load` merges, in this order: the defaults below, params.yaml, its `for_dataset:` block of the chosen data set, and `--set`.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from cellwright.edge.params import EdgeParams
from cellwright.errors import ParamsError
from cellwright.sections import Count, Positive, Section, Share

DATA_SECTIONS = ("ingest", "normalise", "validate")  # they make the data version


class Ingest(Section):
    """Fetch the sources of the data set."""

    mirror: str | None = Field(None, description="folder that holds copies of the sources; read before any address is asked")
    timeout_s: Positive = Field(60, description="longest silence of a server before a download is broken off (it resumes)")


class Normalise(Section):
    """Turn the sources into one Panel."""

    max_gap: Annotated[int, Field(ge=0)] = Field(3, description="longest gap, in intervals, that is filled with the last value")
    outlier_z: Positive = Field(
        15, description="robust z-score (median, MAD; by site and hour of day) above which a value is flagged"
    )
    outage_min: Count = Field(3, description="shortest run of zeros, in intervals, that can be an outage")


class Validate(Section):
    """Hold the panel against its expectations."""

    max_missing_share: Share = Field(0.1, description="largest share of missing intervals a site may have")
    max_age_h: Positive | None = Field(None, description="oldest last row accepted, hours; null: not checked (historic data)")
    max_shift: Positive = Field(
        0.5, description="largest shift of a feature's median against the last accepted version, in its interquartile ranges"
    )


class ProblemParams(Section):
    """What a forecast is asked to be."""

    history: Count = Field(6, description="steps a forecast sees")
    horizon: Count = Field(3, description="steps it forecasts")
    targets: tuple[str, ...] = Field((), description="features to forecast; empty: those of the data set")
    features: tuple[str, ...] = Field((), description="further features the models see; the targets are always seen")
    lags: tuple[Count, ...] = Field((), description="longer lags, in steps, of the targets (144 = same time yesterday at 10 min)")
    inputs: Literal["auto", "site", "patch", "all"] = Field("auto", description="what models see; auto: what each prefers")
    patch: Count = Field(5, description="edge K of a K×K neighbourhood, odd")
    calendar: bool = Field(True, description="whether hour and weekday reach the models")
    holidays: str | None = Field(
        None, description="country, or country-region, whose public holidays reach the models (IT, IT-MI); null: none"
    )
    neighbours: Annotated[int, Field(ge=0)] = Field(0, description="nearest sites whose mean is a further feature; 0: none")
    exogenous: tuple[str, ...] = Field((), description="files of series joined by time: `path` or `path:column` (CSV, Parquet)")
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="levels of a probabilistic head, ascending, 0.5 among them; empty: one point forecast"
    )


class Split(Section):
    """Chronological shares of the rows."""

    train: Share = 0.8
    validation: Share = 0.1
    test: Share = 0.1
    since: str | int | None = Field(None, description="first time used, ISO 8601, or a row; null: the panel's first")
    until: str | int | None = Field(
        None, description="time up to which rows are used, ISO 8601, or a row; null: the panel's last"
    )


class ModelSettings(Section):
    """What one model does differently from `train`."""

    inputs: Literal["site", "patch", "all"] | None = Field(None, description="overrides problem.inputs")
    lags: tuple[Count, ...] | None = Field(None, description="overrides problem.lags")
    options: dict[str, Any] = Field(default_factory=dict, description="the model's own options, by name")
    learning_rate: Positive | None = Field(None, description="overrides train.learning_rate")
    weight_decay: float | None = Field(None, description="overrides train.weight_decay")
    batch: Count | None = Field(None, description="overrides train.batch")
    loss: Literal["mae", "mse", "huber"] | None = Field(None, description="overrides train.loss")
    scaler: Literal["standard", "robust", "log", "none"] | None = Field(None, description="overrides train.scaler")
    budget_s: Positive | None = Field(None, description="overrides train.budget_s")
    max_epochs: Count | None = Field(None, description="overrides train.max_epochs")
    precision: Literal["auto", "32", "bf16"] | None = Field(None, description="overrides train.precision")


class Train(Section):
    """Train the candidates."""

    models: tuple[str, ...] = Field(
        ("persistence", "seasonal_naive", "ridge", "trees", "dlinear", "mlp", "lstm", "gru", "tcn", "patchtst"),
        description="candidates: a model's name, `name:preset`",
        min_length=1,
    )
    settings: dict[str, ModelSettings] = Field(default_factory=dict, description="per candidate, by its name in `models`")
    budget_s: Positive = Field(60, description="training time of one candidate, seconds")
    max_epochs: Count = 200
    patience: Count = Field(8, description="epochs without a better validation loss before training stops as converged")
    lr_patience: Count | None = Field(3, description="such epochs before the learning rate is halved; null: it stays")
    batch: Count = Field(1024, description="windows a step; one of all sites counts as one a site, and at least 8 are taken")
    windows_per_epoch: Count | None = Field(None, description="windows sampled an epoch; null: all of them")
    validation_windows: Count | None = Field(None, description="windows of the validation loss between epochs; null: all")
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    loss: Literal["mae", "mse", "huber"] = "mae"
    scaler: Literal["standard", "robust", "log", "none"] = Field("standard", description="per site and feature, on training rows")
    clip: Positive | None = Field(None, description="scaled inputs are clipped to ± this; null: not clipped")
    gradient_clip: Positive | None = 1.0
    warm_start: Literal["none", "champion"] = Field(
        "none", description="on a new data version, the champion's model starts from: fresh weights, or the champion's"
    )
    seed: int = 7
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32", "bf16"] = Field("auto", description="auto: bf16 mixed on a GPU that has it, else 32")


class Halving(Section):
    """Drop the weakest candidates early (successive halving), so that many cost little more than a few. Not under DVC."""

    rungs: Annotated[int, Field(ge=0)] = Field(0, description="pauses at which the weakest are dropped; 0: all train in full")
    eta: Annotated[float, Field(gt=1)] = Field(
        3, description="from rung to rung the training time grows by this factor, and one network in so many goes on"
    )
    min_budget_s: Positive = Field(3, description="rungs with less training than this are left out, seconds of train.budget_s")
    keep: Count = Field(3, description="networks that go on at the least")
    windows: Count = Field(4096, description="validation windows, about, on which candidates are compared at a rung")


class Search(Section):
    """Hyper-parameter search before training."""

    trials: Annotated[int, Field(ge=0)] = Field(0, description="Optuna trials a model; 0: the defaults are used")
    budget_s: Positive = Field(20, description="training time of one trial, seconds")


class PartyParams(Section):
    """What one party of a vertical federation holds."""

    features: tuple[str, ...] = Field((), description="features it holds; the active party has the targets besides")
    sites: tuple[str, ...] | None = Field(None, description="sites it holds them of; null: all")
    dataset: str | None = Field(None, description="data set that they are of; null: the run's")


PartyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$")]


class VerticalParams(Section):
    """`cellwright federate vertical`: the features lie with one party, the targets with another; history, horizon and split as for all."""

    active: str = Field(description="party that holds the targets")
    parties: dict[PartyName, PartyParams] = Field(description="all parties, the active one among them", min_length=2)
    align: Literal["site_time", "time"] = Field(
        "site_time", description="what the parties' rows have in common: site and time stamp, or the time stamp alone"
    )
    segments: tuple[str, ...] = Field((), description="segments of the data set that are used; empty: all rows")
    model: Literal["gru", "lstm", "tcn", "mlp"] = Field("gru", description="network whose lower part each party has")
    embedding: Count = Field(32, description="numbers of an embedding, the width of each party's network")
    epochs: Count = Field(40, description="epochs at most")
    steps: Count | None = Field(None, description="optimiser steps an epoch; null: all training windows once")
    batch: Count = Field(256, description="windows a step")
    learning_rate: Positive = 3e-3
    patience: Count = Field(8, description="epochs without a better validation loss before it stops as converged")
    embedding_clip: Positive | None = Field(None, description="longest embedding that leaves a passive party (L2); null: any")
    embedding_noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="standard deviation of the noise on an embedding, in units of embedding_clip; 0: none"
    )
    epsilon: Positive | None = Field(
        None, description="privacy budget of a window's embeddings (δ = 1e-5): no more epochs than it allows; null: no bound"
    )
    budget_s: Positive | None = Field(None, description="longest it may train, seconds; null: no limit")
    deadline_s: Positive = Field(120, description="longest that a message waits for its answer, seconds")
    compare: bool = Field(True, description="whether the active party also trains alone")
    pooled: bool = Field(False, description="whether one party that holds everything also trains, as a yardstick")


class TransferParams(Section):
    """`cellwright federate transfer`: a body that the owners of another data set train; steps, batch and the rest as in `federation`."""

    source: str = Field(description="data set whose owners train the body; of the same cadence")
    source_rounds: Count = Field(20, description="rounds of the source's owners at most")
    rounds: Count = Field(10, description="rounds of the target's owners at most")
    frozen_rounds: Annotated[int, Field(ge=0)] = Field(
        3, description="of these, rounds in which the body stays as it came and all else learns; 0: all learns from the start"
    )
    rows: Count | None = Field(None, description="newest rows of the target's training span that are used; null: all")
    rule: str | None = Field(None, description="aggregation rule of both; null: federation.rule")
    model: str | None = Field(None, description="network of both; null: federation.model")
    compare: bool = Field(True, description="whether the target's owners also train from fresh weights, as many rounds")


class Federation(Section):
    """Train where the data may not move: candidates `<rule>:<model>` (fedavg:gru), and `cellwright federate`."""

    rule: str = Field(
        "fedavgm", description="aggregation rule of `cellwright federate`; auto: chosen by request, resources and data"
    )
    rule_options: dict[str, Any] = Field(
        default_factory=dict,
        description="the rule's own options, by name; of several rules, by the rule: {fedprox: {mu: 0.01}, krum: {share: 0.2}}",
    )
    model: str = Field("gru", description="network that `cellwright federate` trains; auto: chosen likewise")
    owners: Literal["site"] | Count = Field(
        "site", description="who owns the data: each site itself, or so many groups of neighbouring sites"
    )
    rounds: Count = Field(60, description="rounds at most")
    steps: Count = Field(13, description="optimiser steps an owner does in a round")
    batch: Count = Field(256, description="windows a step")
    initial: Literal["seed", "champion"] = Field(
        "seed", description="initial model: fresh weights from the seed, or the data set's champion where there is one that fits"
    )
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="the owners'")
    learning_rate: Positive = Field(5e-3, description="the owners', in the first round")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    moments: bool = Field(False, description="whether AdamW goes on with each owner's moments of the round before")
    search_trials: Annotated[int, Field(ge=0)] = Field(
        0, description="short federations that try learning rate, steps and batch out before the training; 0: none"
    )
    search_rounds: Count = Field(5, description="rounds of each")
    patience: Count = Field(12, description="rounds without a better validation loss before it stops as converged")
    lr_patience: Count | None = Field(None, description="such rounds before the learning rate is halved; null: it only decays")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of the owners asked in a round")
    least_owners: Count = Field(2, description="fewest owners a round is counted with")
    most_owners: Count | None = Field(
        None,
        description="owners that train at most, the best by score; of the others only scalers are asked; null: all that are fit",
    )
    deadline_s: Positive = Field(600, description="longest a round waits for its owners, seconds")
    lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(0.96, description="factor of the learning rate from round to round")
    task: Literal["regression", "classification"] = Field(
        "regression", description="what quality is measured by: errors, or how well load above a site's 90 % quantile is told"
    )
    target: dict[str, float] = Field(default_factory=dict, description="quality to stop at, metric by metric: {mse: 900}")
    target_mse: Positive | None = Field(None, description="validation error at which it stops, raw units squared; null: none")
    more_rounds: Share = Field(0.0, description="rounds that may be added while the error still falls, as a share of `rounds`")
    priority: Literal["high", "medium", "low"] = Field("medium", description="of the request, where several share the nodes")
    importance: Annotated[int, Field(ge=0, le=10)] = Field(5, description="of the request, beside its priority")
    delay_bound_s: Positive | None = Field(None, description="time in which the model is wanted, seconds; null: no bound")
    budget_s: Positive | None = Field(None, description="longest it may train, seconds; null: no limit")
    budget_j: Positive | None = Field(None, description="most energy of all owners, joules; null: no limit")
    privacy: tuple[str, ...] = Field(
        (), description="mechanisms, in any order: local_dp, central_dp, dp_sgd, secure_aggregation, ckks"
    )
    privacy_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="each mechanism's own options, by name")
    compression: str = Field("none", description="codec of the updates: none, fp16, int8, topk")
    compression_options: dict[str, Any] = Field(default_factory=dict, description="the codec's own options, by name")
    topology: Literal["star", "hierarchy"] = Field("star", description="who talks to whom")
    regions: Count = Field(3, description="edges of a hierarchy, where no file of nodes says")
    nodes: str | None = Field(None, description="YAML file of nodes and links; null: a node an owner, all on this machine")
    audit: bool = Field(True, description="whether every message is signed, checked and logged")
    checkpoints: bool = Field(True, description="whether every round can be resumed from")
    storage_key: str | None = Field(
        None,
        description="file of the key (64 hex digits, made on first use) that states, checkpoints and outcomes are sealed with",
    )
    key_command: tuple[str, ...] = Field(
        (), description="program that prints that key, instead of a file: a key management system"
    )
    contribution: bool = Field(True, description="whether each owner's contribution is measured at the end")
    contribution_rounds: Count = Field(2, description="rounds, evenly spread, from whose updates it is estimated")
    contribution_orders: Count = Field(
        25, description="orders in which owners join, a round, for the Shapley values; as many as owners let each be first"
    )
    contribution_owners: Count = Field(64, description="owners above which it is not measured: each order asks all of them often")
    reward_pot: Positive = Field(100.0, description="reward given out in all; it raises an owner's rank when the next are chosen")
    compare: bool = Field(True, description="whether `cellwright federate` also trains each owner alone, and all centrally")
    compare_budget_s: Positive = Field(
        300, description="longest such a training takes, seconds; it stops earlier when it converges"
    )
    share_scalers: bool = Field(
        True, description="whether each site's centre and scale may leave its owner, so that one forecaster can be published"
    )
    runtime: Literal["local", "deployed"] = Field("local", description="in this process, or on Flower's SuperLink and SuperNodes")
    address: str = Field("127.0.0.1:9093", description="control address of the SuperLink, for runtime `deployed`")
    database: str | None = Field(None, description="the FMLMS's state, an SQLAlchemy URL; null: SQLite in .cellwright/")
    vertical: VerticalParams | None = Field(None, description="parties with different features of the same time; null: none")
    transfer: TransferParams | None = Field(None, description="a network's body from another data set; null: none")


class Runner(Section):
    """Where candidates train."""

    kind: Literal["serial", "threads", "processes", "dask"] = "processes"
    workers: Annotated[int, Field(ge=0)] = Field(0, description="candidates at once; 0: cores / threads_per_worker")
    threads_per_worker: Count = Field(1, description="threads of the matrix library in each")
    dask_address: str | None = Field(None, description="scheduler of a running Dask cluster; null: a local one is started")


class Score(Section):
    """Measure the candidates on the untouched last span."""

    stride: Count = Field(1, description="every n-th window of the validation and the test span is forecast; 1: all of them")
    costs: bool = Field(True, description="whether speed, size and energy are measured too; false: errors alone")
    batch: Count = Field(256, description="windows a batch for throughput")
    latency_repeats: Count = Field(200, description="single forecasts timed")
    bootstrap: Count = Field(1000, description="resamples of the paired block bootstrap")
    block_h: Positive = Field(24, description="block length of the bootstrap, hours")
    energy_forecasts: Count = Field(2000, description="forecasts whose energy is measured, scaled to 1,000")
    replay_s: Annotated[float, Field(ge=0)] = Field(
        3.0, description="finalists that trained beside others train again, alone, this long, to measure their energy; 0: never"
    )


class Energy(Section):
    """Meters and prices of energy."""

    country: str = Field("DEU", description="ISO 3166 alpha-3 code for the carbon intensity of the grid (CodeCarbon's table)")
    cpu_w_per_core: Positive | None = Field(None, description="power of a busy core where no meter is; null: CodeCarbon's model")
    idle_s: Annotated[float, Field(ge=0)] = Field(1.0, description="idle time measured first and subtracted")


class Prices(Section):
    """What things cost, for the cost KPIs."""

    currency: str = "EUR"
    energy_per_kwh: float = 0.30
    cpu_core_hour: float = 0.04
    gpu_hour: float = 2.0
    storage_gb_month: float = 0.02
    capacity_per_unit_h: float = Field(
        0.001,
        description="one unit of the first target kept ready for an hour; 0.001: the energy of a macro sector, 1 kW for 300 Mbit/s",
    )
    violation_share: Share = Field(0.005, description="share of intervals whose load may exceed the capacity provided for it")


class Rank(Section):
    """From KPIs to a leaderboard and a choice."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"mae": 5.0, "rmse": 2.0, "latency_p99_ms": 1.0, "bundle_bytes": 0.5, "train_energy_j": 1.0},
        description="weight of each KPI in the score",
    )
    similar_accuracy: Share = Field(0.01, description="relative MAE difference below which two models count as equally accurate")


class Scorecard(Section):
    """Probe the finalists: the dear KPIs."""

    finalists: Annotated[int, Field(ge=0)] = Field(
        3, description="candidates probed: the champion, those of similar accuracy, then the best by score; 0: none"
    )
    windows: Count = Field(1024, description="windows of one site that are probed in each span, evenly spread")
    seed: int = Field(7, description="of the windows that are drawn, and of what is done to them")
    budget_s: Annotated[float, Field(ge=0)] = Field(
        6.0, description="training seconds of a finalist's retrainings (seeds, folds, area) together; 0: none is retrained"
    )
    seeds: Annotated[int, Field(ge=0)] = Field(2, description="seeds retrained with, for seed_spread; 0: not probed")
    folds: Annotated[int, Field(ge=0)] = Field(
        2, description="rolling-origin folds retrained on, for rank_stability; 0: not probed"
    )
    area: bool = Field(True, description="whether to retrain on half of the sites, for generalisation_area")
    noise_share: Positive = Field(0.1, description="noise on the inputs, in standard deviations of each site and feature")
    missing_share: Share = Field(0.1, description="share of the history's values that are taken away")
    outage_h: Positive = Field(1.0, description="newest stretch of the history that an outage blots out, hours")
    unit_factor: Positive = Field(1000.0, description="factor of an unannounced change of unit")
    load_shift: Positive = Field(0.2, description="rise of the level, relative: 0.2 is 20 % more load")
    attribution_windows: Count = Field(128, description="windows whose inputs are attributed by integrated gradients")
    attribution_steps: Count = Field(32, description="points on the path of integrated gradients")
    transfer_to: str | None = Field(None, description="data set of the same cadence that is forecast untrained; null: none")


class Register(Section):
    """MLflow."""

    promote: bool = Field(True, description="whether a winner becomes the champion (never under `dvc repro`)")
    bump: Literal["major", "minor", "patch"] = Field("minor", description="which part of the semantic version a new model raises")


class Publish(Section):
    """The bundle."""

    int8: bool = Field(True, description="also publish an INT8 model if it loses at most max_int8_loss")
    max_int8_loss: Share = Field(0.02, description="largest relative loss of MAE at which the INT8 model is offered")


class Monitor(Section):
    """Watch the champion."""

    detector: str = Field("adwin", description="drift detector")
    detector_options: dict[str, Any] = Field(default_factory=dict, description="the detector's own options, by name")
    policy: str = Field("cooldown", description="when drift leads to retraining")
    batch_h: Positive = Field(24, description="telemetry released a run, hours")
    memory_h: Positive = Field(24 * 14, description="telemetry that a detector remembers, hours")
    min_sites: Count = Field(5, description="sites that must drift before retraining is asked for")
    together_h: Positive = Field(72, description="time within which they must; fewer are forgotten after it, hours")
    settle_h: Annotated[float, Field(ge=0)] = Field(
        168, description="telemetry of the new regime that retraining waits for, hours"
    )
    cooldown_h: Annotated[float, Field(ge=0)] = Field(168, description="no second retraining for this long, hours of telemetry")
    retrain_window_h: Positive = Field(24 * 21, description="newest stretch that retraining may use, hours")
    holdout_h: Positive = Field(48, description="newest hours of it kept for validation, and as many for the test")


class Rollout(Section):
    """How a new version replaces the champion on the edges: canary, guards, promotion or the way back."""

    mode: Literal["direct", "canary", "blue_green"] = Field(
        "direct",
        description="direct: at once; canary: in stages, guarded; blue_green: both warm, the new one computing beside the other, then "
        "all at once, with the old one kept warm",
    )
    edges: tuple[str, ...] = Field(
        (), description="addresses of the edges that are asked for evidence; none: this machine's, or those that the hub names"
    )
    keep_warm_s: Annotated[float, Field(ge=0)] = Field(
        600, description="how long the old version stays warm after a blue/green switch, seconds"
    )
    stages: tuple[Share, ...] = Field(
        (0.05, 0.25, 0.5), description="share of the requests that the challenger answers, stage by stage; after the last: all"
    )
    sites: tuple[str, ...] = Field((), description="sites (cells) whose requests the challenger answers from the start")
    shadow: Share = Field(1.0, description="share of requests that both versions compute, to compare their errors; one answers")
    min_requests: Count = Field(100, description="requests that the challenger answers in a stage before the next")
    min_stage_s: Annotated[float, Field(ge=0)] = Field(60, description="a stage lasts so long at least, seconds")
    max_s: Positive = Field(7 * 86_400, description="the challenger is taken back where nothing is proven by then, seconds")
    poll_s: Positive = Field(5, description="how often the edges are asked, seconds")
    latency_ms: Positive = Field(10, description="an answer later than this counts as late")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.01, description="probability of a wrong verdict, all guards together")
    guards: dict[str, dict[str, Any]] = Field(
        {"error": {}, "failures": {}, "latency": {}, "energy": {}},
        description="what is guarded, and each guard's own options (margin), by name",
    )


class HubParams(Section):
    """The operator cloud's hub (`cellwright hub`), which keeps models of tenants and places them at edges."""

    database: str | None = Field(None, description="SQLAlchemy URL of its state; null: SQLite in the state folder")
    blobs: str | None = Field(
        None, description="folder or fsspec URL (s3://bucket/prefix) of models' bytes; null: the state folder"
    )
    file_bytes: Count = Field(16 * 1024**3, description="largest file that is taken in, bytes")
    upload_lifetime_h: Positive = Field(24, description="an upload that nobody goes on with for so long is thrown away, hours")
    alive_s: Positive = Field(60, description="an edge that was not heard of for longer is not offered to devices, seconds")
    grant_lifetime_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        3600, description="how long a device may fetch what it was matched with, seconds"
    )
    retention_days: Positive = Field(90, description="reports of fetches and QoS sessions are thrown away after so long, days")
    url: str | None = Field(None, description="address of the hub that flows publish to; null: to this machine's edge alone")
    token_file: str | None = Field(
        None, description="file with the token for it (scopes models:read, models:write, publish); null: $CELLWRIGHT_HUB_TOKEN"
    )
    ca: str | None = Field(None, description="certificate authority (PEM) of a hub that serves over TLS; null: a public one")


class Params(Section):
    """The whole of params.yaml."""

    dataset: str = Field("city", description="data set of data/catalogue.yaml")
    ingest: Ingest = Ingest()
    normalise: Normalise = Normalise()
    validate_: Validate = Field(Validate(), alias="validate")
    problem: ProblemParams = ProblemParams()
    split: Split = Split()
    train: Train = Train()
    halving: Halving = Halving()
    search: Search = Search()
    federation: Federation = Federation()
    runner: Runner = Runner()
    score: Score = Score()
    energy: Energy = Energy()
    prices: Prices = Prices()
    rank: Rank = Rank()
    scorecard: Scorecard = Scorecard()
    register_: Register = Field(Register(), alias="register")
    publish: Publish = Publish()
    monitor: Monitor = Monitor()
    hub: HubParams = HubParams()
    edge: EdgeParams = EdgeParams()
    rollout: Rollout = Rollout()
    for_dataset: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="sections that differ for one data set, by its name"
    )


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read params.yaml, lay the data set's own block and `--set section.key=value` over it, and check everything.

    Raises:
        ParamsError: unreadable file, unknown key (the nearest known one is named), a value out of range, or an override of a
            data section: that would make a data version which nobody else can name.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"cannot read {path}: {error}") from error
    if raw is not None and not isinstance(raw, dict):
        raise ParamsError(f"{path} must hold sections (key: value), found {type(raw).__name__}")
    base: dict[str, Any] = raw or {}
    given = _parse_overrides(overrides)
    for section in DATA_SECTIONS:
        if section in given:
            key = next(iter(given[section]), "") if isinstance(given[section], dict) else ""
            raise ParamsError(
                f"--set {section}.{key}: '{section}' makes a data version, which DVC must see change; "
                f"edit params.yaml, line {_line_of(path, section, str(key))}, instead"
            )
    check(base, str(path))
    dataset = given.get("dataset", base.get("dataset", Params().dataset))
    blocks = base.get("for_dataset") or {}
    for name, block in blocks.items():
        if wrong := [s for s in DATA_SECTIONS if s in (block or {})]:
            raise ParamsError(
                f"{path}, for_dataset.{name}.{wrong[0]}: data sections hold for all data sets, since DVC tracks them as one; "
                f"set {wrong[0]} itself, and move the block out"
            )
        check(_merged(base, block), f"{path}, for_dataset.{name}")
    merged = _merged(_merged(base, blocks.get(dataset) or {}), given)
    return check(merged, "params.yaml with --set" if overrides else str(path))


def laid_over(params: Params, sections: Mapping[str, Any], where: str) -> Params:
    """`params` with sections of a recipe over it.

    Raises:
        ParamsError: an unknown key, a value out of range, or a data section: that would make another data version.
    """
    if wrong := [s for s in DATA_SECTIONS if s in sections]:
        raise ParamsError(f"{where}: '{wrong[0]}' makes a data version, which DVC must see change; set it in params.yaml instead")
    return check(_merged(params.model_dump(mode="json", by_alias=True), sections), where)


def check(raw: Mapping[str, Any], where: str) -> Params:
    """Validate a mapping.

    Raises:
        ParamsError: with every problem found, one a line.
    """
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors()]
        raise ParamsError(f"{where}: " + "; ".join(lines)) from None


def explain() -> Iterator[tuple[str, str, Any, str]]:
    """Every key: (dotted name, type, default, description)."""
    for name, field in Params.model_fields.items():
        section = field.default
        key = field.alias or name
        if not isinstance(section, Section):
            yield key, _type_name(field.annotation), field.get_default(call_default_factory=True), field.description or ""
            continue
        for inner, f in type(section).model_fields.items():
            yield f"{key}.{inner}", _type_name(f.annotation), getattr(section, inner), f.description or ""
            for below, part in _sections_in(f.annotation):
                yield from _explained(f"{key}.{inner}{below}", part)


def _explained(key: str, section: type[Section]) -> Iterator[tuple[str, str, Any, str]]:
    """Keys of a section within a section; `<name>` stands for a name that the file gives."""
    for inner, f in section.model_fields.items():
        default = "required" if f.is_required() else f.get_default(call_default_factory=True)
        yield f"{key}.{inner}", _type_name(f.annotation), default, f.description or ""
        for below, part in _sections_in(f.annotation):
            yield from _explained(f"{key}.{inner}{below}", part)


def _sections_in(annotation: Any) -> list[tuple[str, type[Section]]]:
    """Sections that a type is made of, and what stands before their keys: `Section | None`, `dict[str, Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [("", annotation)]
    below = ".<name>" if typing.get_origin(annotation) is dict else ""
    return [(below + deeper, found) for part in typing.get_args(annotation) for deeper, found in _sections_in(part)]


def _type_name(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (types.UnionType, typing.Union):
        return " | ".join("null" if part is types.NoneType else _type_name(part) for part in parts)
    if parts:
        return f"{origin.__name__}[{', '.join('…' if part is ... else _type_name(part) for part in parts)}]"
    return getattr(annotation, "__name__", str(annotation))


def _line_of(path: Path, section: str, key: str) -> str:
    """Where in the file a key stands, or where it would."""
    lines = path.read_text().splitlines()
    top = next((i for i, line in enumerate(lines) if re.match(rf"{section}\s*:", line)), None)
    if top is None:
        return f"{len(lines) + 1} (a new section '{section}:')"
    for i in range(top + 1, len(lines)):
        if lines[i] and not lines[i][0].isspace():
            break
        if re.match(rf"\s+{re.escape(key)}\s*:", lines[i]):
            return str(i + 1)
    return f"{top + 2} (a new key '{key}:')"


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ParamsError(f"--set wants section.key=value, found '{item}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ParamsError(f"--set {key}: '{text}' is not YAML ({error})") from error
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ParamsError(f"--set {key}: '{parent}' was given a value before")
        node[leaf] = value
    return tree


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}, found {error['input']!r}"
    known = _keys_at(error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(known)}"
    return f"{where}: unknown key{hint}"


def _keys_at(path: Sequence[Any]) -> list[str]:
    """The keys that a place in the file has; names that the file gives are passed over."""
    model: type[BaseModel] = Params
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        found = [] if field is None else _sections_in(field.annotation)
        model = found[0][1] if found else model
    return [f.alias or n for n, f in model.model_fields.items()]
