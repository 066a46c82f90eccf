"""Probe: the finalist trained again, briefly, with other seeds, on earlier rows, and on half of the sites.

The trainings share `scorecard.budget_s` in equal parts. Each leaves a record, so that none is done twice; one that was killed goes on
from its checkpoint. A budget of seconds does not train a network to its end: what is compared is compared at equal budget.

    seeds   all training rows, seeds `train.seed`, + 1, …; judged on the validation span
    folds   rolling origin: each fold trains on all rows before its own, chooses its weights on the next stretch, and is judged on the
            one after that. The last fold's ends with the validation span, each earlier one's a stretch earlier; the test span is not read
    area    the left half of the grid (else the first half of the sites); judged on the other half of the test span, beside the
            training of the first seed, which has seen all sites
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cellwright.data.neighbours import count_of
from cellwright.data.split import Span, Spans
from cellwright.data.windows import Windows
from cellwright.errors import CellwrightError, TrainingError
from cellwright.forecaster import Forecaster
from cellwright.kpis._bed import Bed, mae_of, moved
from cellwright.kpis._halves import halves
from cellwright.kpis._probes import Found, Probes
from cellwright.kpis._retrained import Again, Judged, Retrained, again
from cellwright.panel import Panel
from cellwright.training.candidates import Candidate

FEEDS = ("seed_spread", "rank_stability", "generalisation_area")
_SEEDS, _FOLDS, _AREA = FEEDS


def probe(bed: Bed) -> Found:
    """Train again for every part that is asked for; a part that fails does not keep the others from theirs."""
    card = bed.params.scorecard
    trainings = card.seeds + card.folds + card.area
    if not card.budget_s or not trainings:
        return Found(
            reasons=dict.fromkeys(FEEDS, "nothing was retrained: scorecard.budget_s is 0, or no seed, fold or area is asked for")
        )
    if bed.candidate.rule:
        return Found(reasons=dict.fromkeys(FEEDS, "a federation is not trained again here: its owners would have to take part"))
    retrain = again(bed, card.budget_s / trainings)
    found = [_attempt(_SEEDS, seeds, bed, retrain), _attempt(_FOLDS, folds, bed, retrain), _attempt(_AREA, area, bed, retrain)]
    evidence = {k: v for f in found for k, v in f.evidence.model_dump(exclude_defaults=True).items()}
    return Found(
        evidence=Probes(**evidence),
        reasons={k: v for f in found for k, v in f.reasons.items()},
        notes={k: v for f in found for k, v in f.notes.items()},
    )


def _attempt(kpi: str, work: Callable[[Bed, Again], Found], bed: Bed, retrain: Again) -> Found:
    try:
        return work(bed, retrain)
    except CellwrightError as error:
        return Found(reasons={kpi: str(error)})


def seeds(bed: Bed, retrain: Again) -> Found:
    """Trainings that differ in their seed alone."""
    count, network = bed.params.scorecard.seeds, bed.candidate.network
    if count < 2:
        return Found(reasons={_SEEDS: f"scorecard.seeds is {count}, and a spread wants at least 2"})
    if network.closed_form and not network.fitter:
        same = _whole(bed, retrain).maes["validation"]
        return Found(evidence=Probes(seed_maes=(same,) * count), notes={_SEEDS: "a closed form: no seed enters it"})
    done = [_whole(bed, retrain, number) for number in range(count)]
    return Found(evidence=Probes(seed_maes=tuple(r.maes["validation"] for r in done)), notes={_SEEDS: _words(done)})


def folds(bed: Bed, retrain: Again) -> Found:
    """Trainings on earlier and earlier rows."""
    count = bed.params.scorecard.folds
    if count < 2:
        return Found(reasons={_FOLDS: f"scorecard.folds is {count}, and a rank changes between at least 2"})
    done = []
    for number, rows in enumerate(rolling(bed.spans, count)):

        def judge(forecaster: Forecaster, rows: Spans = rows) -> Judged:
            return Judged({"next": _mae(bed, forecaster, bed.panel, rows.test)})

        done.append(retrain(f"fold-{number}", bed.candidate, bed.panel, rows, judge))
    maes = tuple(r.maes["next"] for r in done)
    return Found(evidence=Probes(fold_maes={bed.trained.key: maes}), notes={_FOLDS: _words(done)})


def rolling(spans: Spans, count: int) -> list[Spans]:
    """(training, choosing, judging) rows of each fold, the earliest first.

    Raises:
        TrainingError: the earliest fold would train on fewer rows than it is judged by.
    """
    start, stop = spans.train.start, spans.validation.stop
    stretch = min(spans.validation.rows, (stop - start) // (2 * (count + 1)))
    ends = [stop - stretch * back for back in reversed(range(count))]
    found = [Spans(Span(start, e - 2 * stretch), Span(e - 2 * stretch, e - stretch), Span(e - stretch, e)) for e in ends]
    if stretch < 1 or found[0].train.rows < stretch:
        raise TrainingError(f"{stop - start} rows before the test span are too few for {count} folds; lower scorecard.folds")
    return found


def area(bed: Bed, retrain: Again) -> Found:
    """A training on half of the sites, and one on all of them, both forecasting the other half."""
    if not bed.params.scorecard.area:
        return Found(reasons={_AREA: "scorecard.area is off"})
    if bed.forecaster.problem.inputs == "all":
        reason = "it sees all sites at once, so that it can forecast no others than those it was trained on"
        return Found(reasons={_AREA: reason})
    here, there = halves(bed.panel)

    def judge(forecaster: Forecaster) -> Judged:
        return Judged({"there": _mae(bed, _moved(bed, forecaster, there), there, bed.spans.test)})

    candidate, whole = _on(bed.candidate, here), _whole(bed, retrain)
    if "there" not in whole.maes:
        raise TrainingError(whole.reasons.get("there", "the training on all sites was not judged on the other half"))
    part = retrain("area", candidate, here, bed.spans, judge)
    evidence = Probes(area_mae=part.maes["there"], area_whole_mae=whole.maes["there"])
    sizes = f"trained on {len(here.schema.sites)} sites, judged on the other {len(there.schema.sites)}"
    return Found(evidence=evidence, notes={_AREA: f"{sizes}; {_words([part, whole])}"})


def _whole(bed: Bed, retrain: Again, number: int = 0) -> Retrained:
    """The training on all sites with a seed; the first is also judged on the half of the sites that `area` forecasts."""

    def judge(forecaster: Forecaster) -> Judged:
        maes = {"validation": _mae(bed, forecaster, bed.panel, bed.spans.validation)}
        if number or not bed.params.scorecard.area or bed.forecaster.problem.inputs == "all":
            return Judged(maes)
        try:
            _, there = halves(bed.panel)
            return Judged(maes | {"there": _mae(bed, _moved(bed, forecaster, there), there, bed.spans.test)})
        except CellwrightError as error:  # that `area` has no value is no reason for `seeds` to have none
            return Judged(maes, {"there": str(error)})

    settings = replace(bed.candidate.settings, seed=bed.candidate.settings.seed + number)
    return retrain(f"seed-{number}", replace(bed.candidate, settings=settings), bed.panel, bed.spans, judge)


def _on(candidate: Candidate, panel: Panel) -> Candidate:
    """The candidate on a part of the sites; a network of single sites or patches has the same form there.

    Raises:
        TrainingError: they are too few for the means of the nearest.
    """
    nearest, sites = count_of(candidate.problem.features), len(panel.schema.sites)
    if nearest >= sites:
        raise TrainingError(
            f"half of the area has {sites} sites, so that a site has {sites - 1} others beside it, and problem.neighbours is "
            f"{nearest}: lower it to compare areas"
        )
    return replace(candidate, grid=panel.schema.grid)


def _moved(bed: Bed, forecaster: Forecaster, panel: Panel) -> Forecaster:
    return moved(forecaster, _on(bed.candidate, panel), panel, bed.spans.train)


def _mae(bed: Bed, forecaster: Forecaster, panel: Panel, rows: Span) -> float:
    return mae_of(forecaster, bed.sample(Windows(panel, forecaster.problem), *rows))


def _words(done: list[Retrained]) -> str:
    """What the values rest on: how many trainings, how long, and how they ended."""
    maes = ", ".join(f"{value:.4g}" for r in done for name, value in r.maes.items() if name != "there" or len(r.maes) == 1)
    if all(r.status == "closed form" for r in done):
        return f"{len(done)} fits in closed form: MAE {maes}"
    ended = sum(r.status == "budget" for r in done)
    short = f", {ended} of them ended by it" if ended else ""
    return f"{len(done)} trainings of at most {done[0].budget_s:.2g} s{short}: MAE {maes}"
