"""Step `score`: measure every candidate, one after the other, in a process that does nothing else.

A forecast is one call with batch 1: of one site, or of all sites at once for a network that takes them all. Throughput and
energy count site forecasts (the horizon of one site), so that networks of both kinds compare.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cellwright.energy.replay import SERIALLY, Replay, replayed
from cellwright.errors import CellwrightError, TrainingError
from cellwright.federation.key import federated
from cellwright.kpis._bench import OF_TRAINING, Bench, Entry
from cellwright.kpis._contract import Costs, kpi
from cellwright.kpis._exports import Exports
from cellwright.kpis._spans import SPANS
from cellwright.params import Params
from cellwright.processes import keep_memory
from cellwright.ranking.choose import finalists
from cellwright.ranking.contenders import contenders
from cellwright.ranking.pairs import Pairs
from cellwright.results import Failure, Scored, Trained
from cellwright.workspace import Workspace

Say = Callable[[str], None]
T = TypeVar("T")


def score(params: Params, ws: Workspace, *, on_progress: Say | None = None) -> list[Scored]:
    """Score every trained candidate of the run. One already scored from the same files and parameters is not scored again.

    Writes, in `ws.scores`: <key>.json, <key>.npz (forecasts), truth.npz, onnx/<key>.onnx, and failed/<key>.json for a candidate
    that could not be scored; that stops nobody else.

    Args:
        on_progress: called with one line a candidate.

    Raises:
        TrainingError: no candidate could be scored; the message has each one's reason.
    """
    from cellwright.training.runner import bounded

    say = on_progress or (lambda line: None)
    keep_memory()
    bench = Bench(params, ws)
    with bounded(params.runner.threads_per_worker):
        scored, failures = _all(bench, params.train.models, say)
        if not scored:
            raise TrainingError("no candidate could be scored. " + " ".join(f"{f.key}: {f.reason}." for f in failures))
        compared = _compared(params, ws, bench, scored)
        final = _finalists_alone(params, ws, bench, compared, say) if params.score.costs else compared
    for result in final:
        result.save(ws.score(result.key))
    return final


def _all(bench: Bench, keys: tuple[str, ...], say: Say) -> tuple[list[Scored], list[Failure]]:
    """First the forecasts of all, while another process exports to ONNX; then, in silence, the measurements."""
    scores: dict[str, Scored] = {}
    attempts = _Attempts(bench.ws)
    with Exports() as exports:
        entries: dict[str, Entry] = {}
        for key in keys:
            found = attempts.of(key, partial(bench.entry, key))
            if isinstance(found, Scored):
                scores[key] = found
            elif found is not None:
                entries[key] = found
                if bench.params.score.costs:
                    exports.start(bench.ws.candidate(key), bench.ws.onnx(key))
        waiting = {key: (e, a) for key, e in entries.items() if (a := attempts.of(key, partial(bench.forecast, e))) is not None}
        exports.wait_for_all()
        for number, (key, (entry, accuracy)) in enumerate(waiting.items(), 1):
            onnx = exports.outcome(bench.ws.onnx(key)) if bench.params.score.costs else None
            if scored := attempts.of(key, partial(bench.measure, entry, accuracy, onnx)):
                scores[key] = scored
                say(f"{scored.title}: {_figures(scored)} ({number} of {len(waiting)})")
    for failure in attempts.failures:
        say(f"{failure.key}: no score: {failure.reason}")
    return [scores[key] for key in keys if key in scores], attempts.failures


class _Attempts:
    """Runs what may fail for one candidate; its reason is kept beside the scores and the others go on."""

    def __init__(self, ws: Workspace) -> None:
        self._ws, self.failures = ws, list[Failure]()

    def of(self, key: str, work: Callable[[], T]) -> T | None:
        path = self._ws.failed_score(key)
        path.unlink(missing_ok=True)
        try:
            return work()
        except Exception as error:  # whatever a network of the zoo throws
            reason = str(error) if isinstance(error, CellwrightError) else f"{type(error).__name__}: {error}"
            self.failures.append(Failure(key=key, reason=reason).save(path))
            return None


def _figures(scored: Scored) -> str:
    mae, latency = scored.validation["mae"], scored.cost["onnx_latency_p50_ms"] or scored.cost["latency_p50_ms"]
    error = "no target was measured" if mae is None else f"validation MAE {mae:.4g}"
    return error if latency is None else f"{error}, {latency:.3g} ms a forecast"


def _compared(params: Params, ws: Workspace, bench: Bench, scored: list[Scored]) -> list[Scored]:
    """Each with its paired differences to ridge and to the best on the validation span."""
    keys, cadence_s = [s.key for s in scored], bench.panel.schema.cadence_s
    validation, test = (Pairs.of_run(params, ws, keys, span, cadence_s) for span in SPANS)
    return [
        s.model_copy(
            update={
                "validation_pairs": validation.against(s.key, validation.best),
                "test_pairs": test.against(s.key, validation.best),
            }
        )
        for s in scored
    ]


def _finalists_alone(params: Params, ws: Workspace, bench: Bench, scored: list[Scored], say: Say) -> list[Scored]:
    """Those among whom energy decides: their training energy measured serially, where others ran beside them."""
    pairs = Pairs.of_run(params, ws, [s.key for s in scored], "validation", bench.panel.schema.cadence_s)
    final = finalists(contenders(ws, scored, pairs), pairs, similar_accuracy=params.rank.similar_accuracy)
    return [_alone(params, ws, bench, s, say) if s.key in final else s for s in scored]


def _alone(params: Params, ws: Workspace, bench: Bench, scored: Scored, say: Say) -> Scored:
    from cellwright.training.candidates import resolve

    trained = Trained.read(ws.candidate(scored.key) / "candidate.json")
    done = SERIALLY in scored.sources.get("train_energy_j", "") or federated(scored.key) is not None  # its owners metered it
    if not params.score.replay_s or trained.energy is None or not trained.energy.shared or done:
        return scored
    say(f"{scored.title}: trains alone for {params.score.replay_s:g} s, to measure its energy")
    candidate = resolve(params, bench.panel.schema, scored.key, options=trained.options)
    folder, seconds = ws.candidate(scored.key), params.score.replay_s
    try:
        replay = replayed(candidate, trained, bench.panel, bench.spans, params.energy, folder=folder, seconds=seconds)
    except TrainingError as error:
        say(f"{scored.title}: its energy stays apportioned: {error}")
        return scored
    return scored if replay is None else _with_energy(scored, trained, replay, params)


def _with_energy(scored: Scored, trained: Trained, replay: Replay, params: Params) -> Scored:
    costs = Costs(train_cpu_s=trained.cpu_s, train_energy=replay.reading, prices=params.prices)
    words = f"{replay.reading.source}: {replay.words}"
    return scored.model_copy(
        update={
            "cost": {**scored.cost, **{name: kpi(name).compute(costs) for name in OF_TRAINING}},
            "sources": {**scored.sources, **dict.fromkeys(OF_TRAINING, words)},
        }
    )
