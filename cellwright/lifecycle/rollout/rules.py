"""What a rollout does next. Pure: the state so far and the edges' evidence in, the next state out.

Every guard must be content before the challenger gets more; one that is proven right to object takes it back at once. Where
nothing is proven within `max_s`, it is taken back too: an undecided challenger is not a better one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from cellwright.edge.evidence import Evidence
from cellwright.errors import WrongUse
from cellwright.lifecycle.rollout import guards
from cellwright.lifecycle.rollout.guards._contract import Guard, GuardOptions, Opinion, Verdict
from cellwright.params import Rollout
from cellwright.results import Result

Outcome = Literal["running", "promoted", "rolled_back"]


class Said(Result):
    """A guard's opinion as it is kept."""

    guard: str
    verdict: Verdict
    reason: str
    samples: int


class Event(Result):
    """A change of the rollout."""

    at_s: float  # epoch
    stage: int
    weight: float  # of the challenger from then on
    what: str
    said: tuple[Said, ...] = ()


class State(Result):
    """A rollout so far."""

    model: str
    champion: str
    challenger: str
    outcome: Outcome = "running"
    stage: int = 0
    weight: float
    started_s: float
    stage_since_s: float
    stage_requests: int = 0  # that the challenger had answered when the stage began
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Armed:
    """A guard with its options."""

    guard: Guard
    options: GuardOptions


def armed(params: Rollout) -> tuple[Armed, ...]:
    """The guards that the parameters name.

    Raises:
        UnknownName: a guard that does not exist.
        WrongUse: none at all, or options that a guard does not have.
    """
    if not params.guards:
        raise WrongUse(f"rollout.guards is empty: nothing would be watched; name some of {', '.join(guards.names())}")
    return tuple(_arm(name, options) for name, options in params.guards.items())


def begun(model: str, champion: str, challenger: str, params: Rollout, now_s: float) -> State:
    """The first stage."""
    weight = params.stages[0] if params.stages else 1.0
    event = Event(at_s=now_s, stage=0, weight=weight, what=f"{challenger} answers {weight:.0%} of the requests")
    return State(
        model=model,
        champion=champion,
        challenger=challenger,
        weight=weight,
        started_s=now_s,
        stage_since_s=now_s,
        events=(event,),
    )


def advance(state: State, evidence: Sequence[Evidence], watching: Sequence[Armed], params: Rollout, now_s: float) -> State:
    """The next state; the same one where nothing changes."""
    if state.outcome != "running":
        return state
    opinions = judged(evidence, watching, params)
    if objecting := [name for name, opinion in opinions.items() if opinion.verdict == "worse"]:
        return _ended(state, "rolled_back", f"{objecting[0]}: {opinions[objecting[0]].reason}", opinions, now_s)
    if now_s - state.started_s >= params.max_s:
        open_ = ", ".join(name for name, opinion in opinions.items() if opinion.verdict == "undecided") or "too few requests"
        return _ended(state, "rolled_back", f"undecided after {params.max_s:g} s: {open_}", opinions, now_s)
    answered = sum(e.counts[e.challenger].requests for e in evidence if e.challenger in e.counts)
    waited = now_s - state.stage_since_s >= params.min_stage_s and answered - state.stage_requests >= params.min_requests
    if not waited:
        return state
    if state.stage + 1 < len(params.stages):
        # A larger share is given while guards are still undecided, never while one objects: it brings the evidence sooner.
        return _next_stage(state, params.stages[state.stage + 1], answered, opinions, now_s)
    if all(opinion.verdict == "as_good" for opinion in opinions.values()):
        return _ended(state, "promoted", "all guards are content", opinions, now_s)
    return state


def judged(evidence: Sequence[Evidence], watching: Sequence[Armed], params: Rollout) -> dict[str, Opinion]:
    """What each guard says now, by its name."""
    alpha = params.alpha / len(watching)
    return {a.guard.name: a.guard.judge(evidence, a.options, alpha) for a in watching}


def ended(state: State, outcome: Outcome, why: str, now_s: float) -> State:
    """The end by a person's decision, or the way back after a promotion."""
    return _ended(state, outcome, why, {}, now_s)


def noted(state: State, what: str, now_s: float) -> State:
    """An event that changes nothing else."""
    event = Event(at_s=now_s, stage=state.stage, weight=state.weight, what=what)
    return state.model_copy(update={"events": (*state.events, event)})


def _next_stage(state: State, weight: float, answered: int, opinions: Mapping[str, Opinion], now_s: float) -> State:
    stage = state.stage + 1
    what = f"{state.challenger} answers {weight:.0%} of the requests"
    event = Event(at_s=now_s, stage=stage, weight=weight, what=what, said=said(opinions))
    return state.model_copy(
        update={
            "stage": stage,
            "weight": weight,
            "stage_since_s": now_s,
            "stage_requests": answered,
            "events": (*state.events, event),
        }
    )


def _ended(state: State, outcome: Outcome, why: str, opinions: Mapping[str, Opinion], now_s: float) -> State:
    weight = 1.0 if outcome == "promoted" else 0.0
    what = f"{state.challenger} {outcome.replace('_', ' ')}: {why}"
    event = Event(at_s=now_s, stage=state.stage, weight=weight, what=what, said=said(opinions))
    return state.model_copy(update={"outcome": outcome, "weight": weight, "events": (*state.events, event)})


def said(opinions: Mapping[str, Opinion]) -> tuple[Said, ...]:
    """Opinions as they are kept."""
    return tuple(Said(guard=name, verdict=o.verdict, reason=o.reason, samples=o.samples) for name, o in opinions.items())


def _arm(name: str, options: Mapping[str, object]) -> Armed:
    found = guards.guard(name)
    try:
        return Armed(found, found.module.Options(**options))
    except ValidationError as error:
        raise WrongUse(f"rollout.guards.{name}: {error.errors()[0]['msg']} ({options}); see {found.module.__name__}") from error
