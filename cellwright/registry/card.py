"""The model card (Mitchell et al., 2019, "Model Cards for Model Reporting"), in Markdown. Pure: results in, text out."""

from __future__ import annotations

from cellwright.federation.key import federated
from cellwright.panel import PanelSchema
from cellwright.report.words import escaped, every_nth, exact, number, quantity
from cellwright.results import EnergyReading, Interval, Leaderboard, Scored, Trained
from cellwright.training.own_model import public

_WHAT_LIMITS = (
    "Scored on one stretch of one network: other places, seasons and cadences may differ.",
    "Steps whose telemetry was missing, filled or an outage were neither trained on nor scored: the model promises nothing there.",
    "A lasting change of the network (new layer, new load) makes it older than its data; watch it with `cellwright` monitoring.",
    "It forecasts telemetry of sites, never of persons; it must not be the only ground for switching off coverage.",
)


def model_card(trained: Trained, scored: Scored, leaderboard: Leaderboard, schema: PanelSchema) -> str:
    """The card of one candidate: intended use, KPIs with units, energy with its source, data, training, limits, lineage."""
    parts = [
        f"# {escaped(trained.title)} for {', '.join(map(escaped, leaderboard.targets))} on {escaped(leaderboard.data.dataset)}",
        _use(trained, leaderboard, schema),
        _kpis(scored, leaderboard),
        _comparison(trained, scored, leaderboard),
        _energy(trained.energy),
        _data(leaderboard, schema),
        _training(trained),
        _limits(trained, schema),
        _lineage(trained, leaderboard),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _use(trained: Trained, board: Leaderboard, schema: PanelSchema) -> str:
    sees = {"site": "each site's own history", "patch": "a neighbourhood of sites", "all": "all sites at once"}
    inputs = sees.get(str(trained.problem.get("inputs")), "the history")
    ahead = exact(board.horizon * schema.cadence_s, "s")
    return (
        "## Intended use\n\n"
        f"Forecasts {', '.join(map(escaped, board.targets))} ({escaped(board.unit)}) of {board.data.sites} sites, {board.horizon} steps "
        f"of {exact(schema.cadence_s, 's')} ahead ({ahead}), from {board.history} steps. It sees {inputs}. Raw telemetry goes in (a "
        "missing value as NaN) and raw units come out: scaling is inside."
    )


def _kpis(scored: Scored, board: Leaderboard) -> str:
    lines = ["## Key figures", "", "| KPI | test span | validation span | source |", "| --- | ---: | ---: | --- |"]
    for kpi, title in board.kpi_titles.items():
        unit = board.kpi_units.get(kpi, "")
        spans = [scored.cost[kpi], None] if kpi in scored.cost else [scored.test.get(kpi), scored.validation.get(kpi)]
        if spans != [None, None]:
            values = ["" if v is None and kpi in scored.cost else quantity(v, unit) for v in spans]
            lines.append(f"| {' | '.join(map(escaped, [title, *values, scored.sources.get(kpi, 'measured')]))} |")
    steps = ", ".join(number(value) for value in scored.mae_by_step)
    windows = f"{board.test_windows} test windows{every_nth(board.stride)}"
    return "\n".join([*lines, "", f"MAE by step ahead, in {escaped(board.unit)}: {steps}; over {windows}."])


def _comparison(trained: Trained, scored: Scored, board: Leaderboard) -> str:
    lines = [f"- {_compared(pair, board)}" for pair in scored.test_pairs]
    chosen = f"{escaped(board.choice.sentence)}\n\n" if board.choice.key == trained.key else ""
    floor = ""
    if board.noise_floor:
        known = ", ".join(f"{escaped(t)} {number(v)}" for t, v in board.noise_floor.items())
        floor = f"\n\nNoise floor (MAE that the generating process itself has): {known} {escaped(board.unit)}."
    if not (lines or chosen or floor):
        return ""
    listed = (
        "Difference of MAE on the test span (paired, 95 % block bootstrap; below 0 this model is better):\n\n" if lines else ""
    )
    return f"## Against the others\n\n{chosen}{listed}" + "\n".join(lines) + floor


def _compared(pair: Interval, board: Leaderboard) -> str:
    tie = ", a tie" if pair.tie else ""
    return (
        f"{escaped(public(pair.other))}: {number(pair.difference)} {escaped(board.unit)} [{number(pair.low)}, {number(pair.high)}]{tie} "
        f"(blocks of {pair.block_steps} windows)"
    )


def _energy(energy: EnergyReading | None) -> str:
    if energy is None:
        return "## Energy of training\n\nNot metered."
    parts = [
        f"- {name}: {quantity(reading.energy_j, 'J')} ({reading.source or 'no meter'})"
        for name, reading in (("CPU", energy.cpu), ("RAM", energy.ram), ("GPU", energy.gpu))
    ]
    idle = f"; idle baseline of {number(energy.idle_w)} W subtracted" if energy.idle_w is not None else ""
    shared = "; others ran at the same time, apportioned by CPU-seconds" if energy.shared else ""
    total = (
        f"{quantity(energy.energy_j, 'J')} ({energy.source or 'no meter'}), {quantity(energy.co2_g, 'g')} CO₂, in "
        f"{quantity(energy.duration_s, 's')} and {number(energy.cpu_s)} CPU-seconds{idle}{shared}."
    )
    return "\n".join(["## Energy of training", "", total, "", *parts, "", f"Meter: {escaped(energy.meter)}."])


def _data(board: Leaderboard, schema: PanelSchema) -> str:
    data = board.data
    return (
        "## Data\n\n"
        f"- Data set: {escaped(data.dataset)}, {data.rows:,} rows of {exact(schema.cadence_s, 's')}, {data.sites} sites, {data.first} "
        f"to {data.last}\n- Version (DVC): `{data.hash}`\n- Licence: {escaped(schema.licence)}\n"
        f"- Attribution: {escaped(schema.attribution)}"
    )


def _training(trained: Trained) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in trained.settings.items() if value is not None)
    options = ", ".join(f"{key} {value}" for key, value in trained.options.items()) or "none"
    paper = f"- Paper: {escaped(trained.paper)}\n" if trained.paper else ""
    preset = f", preset {escaped(trained.preset)}" if trained.preset else ""
    warm = f"- Warm start: {escaped(trained.warm_start)}\n" if trained.warm_start else ""
    searched = f", {trained.trials} search trials" if trained.trials else ""
    return (
        f"## Training\n\n{paper}- Model: `{public(trained.model)}`{preset}, {trained.parameters:,} parameters\n"
        f"- Options: {escaped(options)}\n- Settings: {escaped(settings)}, seed {trained.seed}{searched}\n{warm}"
        f"- {trained.windows:,} windows, {trained.epochs} {'rounds' if federated(trained.key) else 'epochs'}, "
        f"{quantity(trained.train_s, 's')}\n"
        f"- Ended: {trained.status}. {escaped(trained.reason)}{_noted(trained)}"
    )


def _noted(trained: Trained) -> str:
    """How it was federated and with what privacy budget, which start was refused, what the network fixed: lines of a list."""
    return "".join(f"\n- {name.capitalize()}: {escaped(note)}" for name, note in trained.notes.items())


def _limits(trained: Trained, schema: PanelSchema) -> str:
    own = [f"Trained for the {len(schema.sites)} sites of its data set: a new site needs training."]
    if trained.status == "budget":
        own.append("Training was ended by its budget, not by convergence: a longer one may be better.")
    if trained.status == "halved":
        own.append("Training was broken off early, for others were better by then: a longer one may be better.")
    if schema.clock == "relative":
        own.append("The data has no calendar clock: hour and weekday are counted from its first row.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in (*own, *_WHAT_LIMITS))])


def _lineage(trained: Trained, board: Leaderboard) -> str:
    return f"## Lineage\n\n- Run: `{board.run}`, candidate `{public(trained.key)}`\n- Data version: `{trained.data.hash}`"
