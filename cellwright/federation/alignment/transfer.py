"""Federated transfer learning (M.3387 10.4): neither samples nor features overlap; what is reused is the body of a network.

    source owners ──> body and head          trained before, federated or not, on another data set
                       │ body
                       ▼
    target owners ──> body, a new head       head alone for `frozen_rounds`, then all of it

The source's telemetry is never needed, nor its owners: weights are all that travels. Parameters of the body are taken one by one
where name and shape agree. Those that read features are adapted, where the source's task is known: what the two have in common (the
target's own history, the calendar) is read as before, all else begins at 0 (`inputs`); without the task they begin anew, like the
head. After Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014, and Liu et al., "A secure
federated transfer learning framework", IEEE Intelligent Systems 2020. A body can tell of the telemetry it was trained on: a source
that wants a bound trains it with differential privacy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from cellwright.errors import FederationError
from cellwright.federation.alignment.audit_summary import AuditSummary
from cellwright.federation.alignment.inputs import adapted, columns
from cellwright.federation.contract import Arrays, Channel, Local, Source, Spec, Task
from cellwright.federation.ledger import less_certain
from cellwright.results import Result

if TYPE_CHECKING:
    from cellwright.federation.aggregation._contract import Rule
    from cellwright.federation.compression._contract import Codec
    from cellwright.federation.management.records import Topology
    from cellwright.federation.rounds import Outcome, Rounds

__all__ = ["Grafted", "Transfer", "TransferResult", "Transferred", "graft", "thawing", "transfer"]

Which = Literal["transfer", "fresh"]
Witness = Callable[[Which, Task, "Rule", Arrays], Mapping[str, Any]]  # -> `auditor` and `signer` of a Coordinator


class Transfer(Spec):
    """What is reused of a source, and how."""

    body: tuple[str, ...] = Field(("blocks.embed", "blocks.core"), description="prefixes of the parameters that are reused")
    frozen_rounds: Annotated[int, Field(ge=0)] = Field(
        3, description="rounds in which they stay as they came and all others learn; 0: all learn from the start"
    )
    compare: bool = Field(True, description="whether the same owners also train from fresh weights, at the same budget")


@dataclass(frozen=True)
class Grafted:
    """Weights to start from."""

    arrays: Arrays  # of the target's network, in its order
    taken: tuple[str, ...]  # from the source as they were
    adapted: tuple[str, ...]  # from the source as far as both read the same channels
    fresh: tuple[str, ...]  # drawn anew: the head, and what reads features that the source did not have


class Course(Result):
    """One training of the target's owners."""

    status: str
    rounds: int
    mae: float | None  # over all owners' test spans, raw units
    mse: float | None
    mae_validation: list[float | None]  # after each round
    mae_by_owner: dict[str, float | None] = Field(default_factory=dict)  # test span; None: an owner that measured nothing there
    down_bytes: int
    up_bytes: int
    energy_j: float | None = None  # of all owners, in the rounds; None: nobody knows it
    energy_source: Source | None = None


class TransferResult(Result):
    """What transfer brought: `transfer.json`."""

    dataset: str  # of the target
    model: str
    body: list[str]
    frozen_rounds: int
    taken: list[str]
    adapted: list[str]
    fresh: list[str]
    taken_share: float  # of the network's numbers, those adapted not counted
    transfer: Course
    alone: Course | None  # from fresh weights: same owners, rounds and steps
    source: str | None = None  # the data set of the body, and the training of its owners, where that is known
    before: Course | None = None
    audit: AuditSummary | None = None  # None: messages were neither signed nor checked


@dataclass(frozen=True)
class Transferred:
    """The result, and the trainings behind it."""

    result: TransferResult
    outcome: Outcome  # its arrays are the model
    alone: Outcome | None


def graft(source: Arrays, fresh: Arrays, body: Sequence[str], adapted: Arrays | None = None) -> Grafted:
    """`fresh` with the source's body in it; `adapted`: those of its arrays that `inputs.adapted` made.

    Raises:
        FederationError: nothing of the body fits, or it holds values that are not finite.
    """
    candidates = [name for name in fresh if name.startswith(tuple(body)) and name in source]
    changed = {name: (adapted or {})[name] for name in candidates if name in (adapted or {})}
    taken = {name: source[name] for name in candidates if name not in changed and source[name].shape == fresh[name].shape}
    if not taken:
        raise FederationError(_nothing_fits(source, fresh, body, candidates))
    if bad := [name for name, array in {**taken, **changed}.items() if not np.isfinite(array).all()]:
        raise FederationError(f"the source's {bad[0]} holds values that are not finite; train the source again")
    arrays = {name: {**fresh, **taken, **changed}[name].astype(array.dtype) for name, array in fresh.items()}
    rest = tuple(name for name in fresh if name not in taken and name not in changed)
    return Grafted(arrays, tuple(taken), tuple(changed), rest)


def _nothing_fits(source: Arrays, fresh: Arrays, body: Sequence[str], candidates: Sequence[str]) -> str:
    if candidates:
        name = candidates[-1]
        return (
            f"nothing of the source's body fits the target's network: {name} is {source[name].shape} there and "
            f"{fresh[name].shape} here; train both with the same model and options"
        )
    return (
        f"no parameter of both networks begins with {' or '.join(body) or 'nothing'}; the target's are "
        f"{', '.join(list(fresh)[:4])}, …; set federation.transfer.body"
    )


def thawing(rule: Rule, frozen: Sequence[str], rounds: int) -> Rule:
    """The rule at its beginning, under which owners leave parameters of these names alone for so many rounds."""

    class Thawing(type(rule)):  # type: ignore[misc]
        def local(self, local: Local, round_: int) -> Local:
            told: Local = super().local(local, round_)
            return replace(told, frozen=(*told.frozen, *frozen)) if round_ <= rounds else told

    return Thawing(rule.options)


def transfer(
    channel: Channel,
    task: Task,
    source: Arrays,
    settings: Transfer,
    rounds: Rounds,
    *,
    rule: Callable[[], Rule],
    codec: Codec,
    topology: Topology,
    source_task: Task | None = None,
    checkpoint: Path | None = None,
    on_training: Callable[[Which], None] | None = None,
    witness: Witness = lambda which, task, rule, arrays: {},
    **coordinator: Any,
) -> Transferred:
    """Train the target's owners from a source's body, and with `compare` also from fresh weights.

    `task` is the target's, `source` the weights of a network of the same model and options trained elsewhere, for `source_task`.
    `rule` makes an
    aggregation rule at its beginning; `coordinator` holds what else `Coordinator` takes. `checkpoint`: a file that names
    those of the two trainings; the same call goes on from there. `on_training` is told which of the two begins. Each is a request of
    its own, so that no message of one can be replayed in the other; `witness` gives its auditor and its coordinator's key.

    Raises:
        FederationError: nothing of the body fits, or as `Coordinator.run`.
    """
    from cellwright.federation.coordinator import Coordinator
    from cellwright.federation.initial import initial

    fresh = initial(task)
    fitted = {} if source_task is None or _reads_alike(source_task, task) else adapted(source, source_task, fresh, task)
    grafted = graft(source, fresh, settings.body, fitted)

    def train(which: Which, rule: Rule, arrays: Arrays) -> Outcome:
        if on_training is not None:
            on_training(which)
        file = None if checkpoint is None else _file(checkpoint, which, settings, arrays)
        own = task.model_copy(update={"request": f"{task.request}-{which}"})
        drawn = topology.model_copy(update={"request": own.request})
        given = {**coordinator, **witness(which, own, rule, arrays), "codec": codec, "topology": drawn, "checkpoint": file}
        return Coordinator(channel, own, rule, rounds, **given).run(arrays)

    alone = train("fresh", rule(), fresh) if settings.compare else None
    outcome = train("transfer", thawing(rule(), grafted.taken, settings.frozen_rounds), grafted.arrays)
    return Transferred(_result(task, settings, grafted, outcome, alone), outcome, alone)


def _reads_alike(source: Task, target: Task) -> bool:
    """Whether both networks read the same channels in the same places."""
    return columns(source) == columns(target)


def _file(checkpoint: Path, which: Which, settings: Transfer, arrays: Arrays) -> Path:
    """Another file for other settings or another source: neither may go on with the other's rounds."""
    mark = hashlib.sha256(json.dumps([which, settings.frozen_rounds, list(settings.body)]).encode())
    for array in arrays.values():
        mark.update(np.ascontiguousarray(array).data)
    return checkpoint.with_name(f"{checkpoint.stem}-{which}-{mark.hexdigest()[:12]}{checkpoint.suffix}")


def _result(task: Task, settings: Transfer, grafted: Grafted, outcome: Outcome, alone: Outcome | None) -> TransferResult:
    sizes = {name: array.size for name, array in grafted.arrays.items()}
    return TransferResult(
        dataset=task.dataset,
        model=task.model,
        body=list(settings.body),
        frozen_rounds=settings.frozen_rounds,
        taken=list(grafted.taken),
        adapted=list(grafted.adapted),
        fresh=list(grafted.fresh),
        taken_share=sum(sizes[name] for name in grafted.taken) / sum(sizes.values()),
        transfer=course(outcome),
        alone=course(alone) if alone else None,
    )


def course(outcome: Outcome) -> Course:
    """What a training came to."""
    counted = sum(e.count for e in outcome.evaluations.values())
    sums: Mapping[str, float] = {
        name: sum(getattr(e, name) for e in outcome.evaluations.values()) for name in ("absolute", "squared")
    }
    spent = [o for r in outcome.rounds for o in r.owners if o.energy_j is not None]
    return Course(
        status=outcome.status,
        rounds=len(outcome.rounds),
        mae=sums["absolute"] / counted if counted else None,
        mse=sums["squared"] / counted if counted else None,
        mae_validation=[r.mae for r in outcome.rounds],
        mae_by_owner={n: e.absolute / e.count if e.count else None for n, e in sorted(outcome.evaluations.items())},
        down_bytes=sum(r.down_bytes for r in outcome.rounds),
        up_bytes=sum(r.up_bytes for r in outcome.rounds),
        energy_j=sum(o.energy_j or 0.0 for o in spent) if spent else None,
        energy_source=reduce(less_certain, (o.energy_source for o in spent), None),
    )
