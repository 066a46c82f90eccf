"""Step `rank`: from scores to a leaderboard and a champion.

The champion and the score are taken from the validation span and from costs; the test span is only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cellwright.errors import ParamsError, TrainingError, UnknownName
from cellwright.kpis._contract import group_of, kpi, names
from cellwright.kpis._spans import read_arrays
from cellwright.panel import Panel, PanelSchema
from cellwright.params import Params
from cellwright.ranking.choose import Verdict, choose
from cellwright.ranking.contenders import contenders
from cellwright.ranking.normalise import scores
from cellwright.ranking.pairs import Pairs
from cellwright.ranking.pareto import front
from cellwright.ranking.sentence import Contender
from cellwright.results import Failure, Leaderboard, Row, Scored, Source, Trained
from cellwright.workspace import Workspace

_GROUPS = ("accuracy", "calibration", "fairness", "cost")
_USUAL = ("mae", "rmse", "r2", "ssim", "mase", "smape")  # the accuracy KPIs that everybody knows, before the others


def rank(params: Params, ws: Workspace) -> Leaderboard:
    """Rank what was scored, choose the champion, and write `ws.leaderboard`.

    Raises:
        UnknownName: `rank.weights` names a KPI that there is not.
        TrainingError: no candidate has a score.
    """
    _check_weights(params)
    schema = Panel.open(ws.panel(params.dataset)).schema
    trained = _trained(params, ws)
    scored = [Scored.read(ws.score(key)) for key in params.train.models if _has_score(ws, key)]
    failures = [_failure(ws, key, trained) for key in params.train.models if not _has_score(ws, key)]
    if not scored:
        raise TrainingError("no candidate has a score: " + "; ".join(f"{f.key}: {f.reason}" for f in failures))
    pairs = Pairs.of_run(params, ws, [s.key for s in scored], "validation", schema.cadence_s)
    rivals = contenders(ws, scored, pairs)
    unit = _unit(schema, trained[scored[0].key])
    verdict = choose(rivals, pairs, similar_accuracy=params.rank.similar_accuracy, unit=unit)
    board = _board(params, ws, schema, trained, scored, failures, _rows(params, scored, rivals, verdict), verdict, unit)
    return board.save(ws.leaderboard)


def _check_weights(params: Params) -> None:
    cheap = (*names("forecast"), *names("cost"))
    for name in params.rank.weights:
        if name in cheap:
            continue
        if name in names():
            raise ParamsError(f"rank.weights: '{name}' is measured for the finalists alone, so it cannot order all candidates")
        raise UnknownName("KPI", name, cheap, "It is a key of rank.weights.")


def _trained(params: Params, ws: Workspace) -> dict[str, Trained]:
    paths = {key: ws.candidate(key) / "candidate.json" for key in params.train.models}
    return {key: Trained.read(path) for key, path in paths.items() if path.is_file()}


def _has_score(ws: Workspace, key: str) -> bool:
    return ws.score(key).is_file() and not ws.failed_score(key).is_file()


def _failure(ws: Workspace, key: str, trained: dict[str, Trained]) -> Failure:
    if key in trained and trained[key].status == "failed":
        return Failure(key=key, reason=trained[key].reason)
    if ws.failed_score(key).is_file():
        return Failure.read(ws.failed_score(key))
    return Failure(key=key, reason="it was trained but not scored" if key in trained else "it was not trained")


def _rows(params: Params, scored: Sequence[Scored], rivals: Sequence[Contender], verdict: Verdict) -> list[Row]:
    """The champion, then those that beat ridge, then the others; among each, the best score first."""
    table = [{**s.validation, **s.cost} for s in scored]
    worth = scores(table, params.rank.weights, {name: kpi(name).lower_is_better for name in names()})
    on_front = front(_accuracy_and_energy(rivals))

    def place(i: int) -> tuple[bool, bool, float, float, str]:
        key = scored[i].key
        return (key != verdict.choice.key, not verdict.beats_reference[key], -worth[i], rivals[i].mae, key)

    order = sorted(range(len(scored)), key=place)
    return [
        Row(
            rank=number,
            key=scored[i].key,
            title=scored[i].title,
            score=worth[i],
            status=scored[i].status,
            beats_ridge=verdict.beats_reference[scored[i].key],
            on_front=bool(on_front[i]),
            similar_to_champion=scored[i].key in (verdict.choice.key, *verdict.choice.similar),
            kpis={**scored[i].test, **scored[i].cost},
            validation_mae=scored[i].validation["mae"],
            coverage=_coverage(scored[i]),
        )
        for number, i in enumerate(order, 1)
    ]


def _coverage(scored: Scored) -> dict[str, float]:
    return {} if scored.test_calibration is None else scored.test_calibration.coverage


def _accuracy_and_energy(rivals: Sequence[Contender]) -> np.ndarray:
    """(candidates, 2): validation MAE, and training energy, or CPU-seconds where any energy is not known."""
    known = all(c.energy_j is not None for c in rivals)
    return np.array([[c.mae, c.energy_j if known else c.cpu_s] for c in rivals], dtype=np.float64)


def _board(
    params: Params,
    ws: Workspace,
    schema: PanelSchema,
    trained: dict[str, Trained],
    scored: Sequence[Scored],
    failures: list[Failure],
    rows: list[Row],
    verdict: Verdict,
    unit: str,
) -> Leaderboard:
    first = trained[scored[0].key]
    shown = _columns(params)
    energy_j, source = _total_energy(trained.values())
    units = {"target": unit, "money": params.prices.currency}
    return Leaderboard(
        run=ws.run,
        data=first.data,
        targets=list(first.problem["targets"]),
        unit=unit,
        history=first.problem["history"],
        horizon=first.problem["horizon"],
        test_windows=len(read_arrays(ws.scores / "truth.npz")["test_origins"]),
        noise_floor=schema.noise_floor,
        rows=rows,
        failures=failures,
        choice=verdict.choice,
        kpi_titles={name: kpi(name).title for name in shown},
        kpi_units={name: units.get(kpi(name).unit, kpi(name).unit) for name in shown},
        kpi_lower_is_better={name: kpi(name).lower_is_better for name in shown},
        total_energy_j=energy_j,
        energy_source=source,
        total_s=sum(t.train_s for t in trained.values()),
        stride=params.score.stride,
        kpi_groups={name: group_of(name) for name in shown},
    )


def _columns(params: Params) -> list[str]:
    """KPIs in the order they are shown: those with a weight, heaviest first, then group by group."""
    weights = params.rank.weights
    weighted = sorted((name for name in weights if weights[name] > 0), key=lambda name: -weights[name])
    cheap = [*names("forecast"), *names("cost")]
    grouped = [name for group in _GROUPS for name in cheap if group_of(name) == group]
    return list(dict.fromkeys([*weighted, *_USUAL, *grouped]))


def _unit(schema: PanelSchema, trained: Trained) -> str:
    """Unit of the targets; those of several, each once."""
    units = {f.name: f.unit for f in schema.features}
    return ", ".join(dict.fromkeys(units[target] for target in trained.problem["targets"]))


def _total_energy(trained: Iterable[Trained]) -> tuple[float | None, str | None]:
    """Energy of all trainings that have a reading, and the weakest source among them."""
    readings = [t.energy for t in trained if t.energy is not None and t.energy.energy_j is not None]
    order: tuple[Source, ...] = ("constant", "modelled", "measured")
    present = {r.source for r in readings}
    return (
        sum(r.energy_j or 0.0 for r in readings) if readings else None,
        next((source for source in order if source in present), None),
    )
