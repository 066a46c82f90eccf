"""A whole federation: from the request to the model, its owners' figures and the log of the auditor (M.3387 clauses 8 to 10).

    plan      the FMLMS takes the request, chooses the owners and builds their topology         planning.py
    train     rounds in this process, or on a SuperLink; resumes where it was interrupted       runtimes/jobs.py
    conclude  errors, contribution and reward of each owner; the model is delivered             here
    compare   the same network trained by each owner alone, and on everyone's data              comparison.py

Everything lies in the candidate's folder: plan.json, job/ (what Flower runs), federation.json, rounds.jsonl, forecaster.safetensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.errors import CellwrightError, FederationError
from cellwright.federation.at_work import at_work, died
from cellwright.federation.key import federated
from cellwright.federation.planning import Plan, enlist, plan, request_of, told
from cellwright.federation.results import Federated, Round
from cellwright.files import write_text

if TYPE_CHECKING:
    from cellwright.federation.contract import Arrays, Task
    from cellwright.federation.fleet import Fleet
    from cellwright.federation.management.service import Fmlms
    from cellwright.federation.rounds import Outcome
    from cellwright.forecaster import Forecaster
    from cellwright.panel import Panel
    from cellwright.params import Params
    from cellwright.results import DataVersion
    from cellwright.workspace import Workspace

PLAN, RESULT, ROUNDS, JOB, WALL = "plan.json", "federation.json", "rounds.jsonl", "job", "seconds.txt"
Say = Callable[[str], None]
OnRound = Callable[[Round], None]


@dataclass(frozen=True)
class Bed:
    """What a federation of one candidate works with."""

    params: Params
    ws: Workspace
    key: str  # "fedavg:gru"
    panel: Panel
    version: DataVersion
    groups: Mapping[str, tuple[int, ...]]  # owner -> its sites, by position
    panels: Mapping[str, Path]  # owner -> its own panel
    fleet: Fleet

    @property
    def folder(self) -> Path:
        """The candidate's."""
        return self.ws.candidate(self.key)

    def sites_of(self, owner: str) -> list[str]:
        """Names of an owner's sites; none of one that is not known."""
        return [self.panel.schema.sites[i] for i in self.groups.get(owner, ())]

    @property
    def rule(self) -> str:
        parts = federated(self.key)
        if parts is None:
            raise FederationError(f"'{self.key}' is no federated candidate; write <rule>:<model>, such as fedavg:gru")
        return parts.rule


def bed(params: Params, ws: Workspace, key: str) -> Bed:
    """Cut the data set by owner, and find the nodes.

    Raises:
        ParamsError: owners or nodes that cannot be meant.
    """
    from cellwright.federation.fleet import fleet
    from cellwright.federation.owners import cut, groups
    from cellwright.panel import Panel
    from cellwright.versioning import data_version

    panel, version = Panel.open(ws.panel(params.dataset)), data_version(ws, params.dataset)
    shares = groups(panel.schema, params.federation.owners)
    by = f"{params.federation.owners}-{version.hash[:12]}".replace(".", "-")
    panels = cut(panel, shares, ws.owners(params.dataset, by))
    sites = {owner: tuple(panel.schema.sites[i] for i in index) for owner, index in shares.items()}
    return Bed(params, ws, key, panel, version, shares, panels, fleet(params.federation, ws.root, sites))


def planned(bed: Bed, *, say: Say = lambda _: None, again: bool = True) -> Plan:
    """The plan of this candidate: the one that an interrupted run had, or a new one from the FMLMS.

    `again`: whether a plan that was told before, and is the same, is told once more.

    Raises:
        FederationError: too few nodes are fit; says why each was left out.
    """
    path = bed.folder / PLAN
    before = Plan.model_validate_json(path.read_bytes()) if path.is_file() else None
    f = bed.params.federation
    with fmlms(bed) as service:
        enlist(service, bed.fleet)
        request = request_of(bed.params, bed.panel.schema, f"{bed.ws.run}-{bed.key}")
        made = plan(
            service,
            request,
            hierarchical=f.topology == "hierarchy",
            resumed=before.request if before else None,
            nodes=[node.name for node in bed.fleet.nodes],
            hold=partial(at_work, bed.ws),
            dead=partial(died, bed.ws),
            most=f.most_owners,
            say=say,
        )
    write_text(path, made.model_dump_json(indent=2) + "\n")
    lines = told(made, bed.fleet)
    for line in lines if again or before is None or told(before, bed.fleet) != lines else ():
        say(line)
    return made


def trained(
    bed: Bed, made: Plan, *, start: Arrays | None = None, say: Say = lambda _: None, on_round: OnRound | None = None
) -> Outcome:
    """Run the rounds, or go on with them. `start`: the weights to start from; None: fresh ones, from the seed.

    Raises:
        FederationError: the training cannot go on; what was done is kept. Or it ended before its first round.
    """
    from cellwright.federation.initial import initial, task_for
    from cellwright.federation.search import searched

    task = task_for(bed.params, bed.panel.schema, bed.key, made.name, kind=bed.params.federation.task)
    first = start if start is not None else initial(task)
    bed = searched(bed, made, task, first, say=say)
    with fmlms(bed) as service:
        while True:
            watch = Watch(service, made, bed, say, on_round)
            try:
                with at_work(bed.ws, made.request):
                    outcome = _run(bed, made, task, first, watch)
                if not outcome.rounds and outcome.status != "paused":
                    raise FederationError(f"no round was run, so that there is no model: {outcome.reason}")
            except CellwrightError as error:
                give_up(service, made, str(error))
                raise
            finally:
                watch.keep()
            if outcome.status != "paused":
                return outcome
            say(f"request  {made.name}: {outcome.reason}")
            made = planned(bed, say=say)


def covered(bed: Bed, made: Plan) -> tuple[str, ...]:
    """Owners that do not train, and whose sites the forecaster is to cover all the same."""
    return tuple(owner for owner in bed.groups if owner not in made.owners)


def give_up(service: Fmlms, made: Plan, reason: str) -> None:
    """The request has failed; its client may have cancelled it before."""
    if service.follow(made.request).status in ("queued", "running", "preempted"):
        service.fail(made.request, reason)


def concluded(bed: Bed, made: Plan, outcome: Outcome) -> tuple[Federated, Forecaster | None]:
    """What came of it: figures of each owner, the FMLMS told, the model delivered; `federation.json` is written.

    The forecaster is None where the owners keep their scalers, or end with models of their own.
    """
    from cellwright.federation.conclusion import conclude

    return conclude(bed, made, outcome)


def compared(bed: Bed, *, say: Say = lambda _: None) -> Federated:
    """Add what the same network comes to when each owner trains alone, and on everyone's data; written to federation.json."""
    from cellwright.data.split import spans
    from cellwright.federation.comparison import alone, central

    found = Federated.read(bed.folder / RESULT)
    rows = spans(bed.params.split, bed.panel.schema)
    say(f"compare  {found.model} on everyone's data")
    together, _ = central(bed.params, bed.panel, rows, bed.key, bed.groups, folder=bed.folder / "central")
    say(f"compare  {found.model} at each owner alone")
    apart = alone(bed.params, bed.panels, rows, bed.key, say=lambda line: None)
    owners = [o.model_copy(update={"mae_alone": apart.of(o.owner), "mae_central": together.of(o.owner)}) for o in found.owners]
    update = {"owners": owners, "mae_alone": apart.mae, "mae_central": together.mae}
    return found.model_copy(update=update).save(bed.folder / RESULT)


def fmlms(bed: Bed) -> Fmlms:
    """The FMLMS of the data set, sealed with the project's key; close it after use (it is a context manager)."""
    from cellwright.federation.management.opening import open_fmlms

    return open_fmlms(bed.ws, bed.params)


def _run(bed: Bed, made: Plan, task: Task, first: Arrays, watch: Watch) -> Outcome:
    from cellwright.federation.data.at_rest import storage_of
    from cellwright.federation.running import in_this_process, on_superlink
    from cellwright.federation.runtimes.jobs import Job

    f, folder = bed.params.federation, bed.folder / JOB
    folder.mkdir(parents=True, exist_ok=True)
    settings = f.model_copy(update={"rule": bed.rule})
    if f.runtime == "deployed" and f.contribution:
        watch.told("contribution is not measured on a SuperLink: every group of owners would take a round of messages of its own")
        settings = settings.model_copy(update={"contribution": False})
    elif f.contribution and "central_dp" in f.privacy:
        watch.told(
            "contribution is not measured under central_dp: models of groups of owners would reach the others without its noise"
        )
    clip, others = bed.params.train.gradient_clip, covered(bed, made)
    storage = storage_of(f.storage_key, f.key_command, bed.ws.root)
    job = Job(task=task, federation=settings, gradient_clip=clip, topology=made.topology, covered=others, storage=storage)
    run = on_superlink if f.runtime == "deployed" else in_this_process
    return run(bed, made, job, first, folder, watch)


class Watch:
    """What happens between rounds: the FMLMS notes them, may preempt or cancel, and rebuilds the topology; whoever watches is told."""

    def __init__(self, service: Fmlms, made: Plan, bed: Bed, say: Say, on_round: OnRound | None) -> None:
        self._service, self._request, self._bed, self._say, self._on_round = service, made.request, bed, say, on_round
        self._began, self._looked = (
            time.monotonic(),
            self._last(),
        )  # rounds before this one were told by the process that ran them

    def on_round(self, record: Round) -> None:
        """A round has ended."""
        for event in (*record.events, *([record.decision] if record.decision else [])):
            self._say(f"round {record.round:3d}  {event}")
        if self._on_round is not None:
            self._on_round(record)

    def told(self, line: str) -> None:
        """Something that whoever watches should know."""
        self._say(line)

    @property
    def hooks(self) -> dict[str, Any]:
        """What the coordinator asks the FMLMS: whether to pause or stop between rounds (8.5), and for another topology (8.4.1)."""
        from cellwright.federation.management import hooks

        return {"between": hooks.between(self._service, self._request), "rebuild": hooks.rebuild(self._service, self._request)}

    def looked(self) -> None:
        """Rounds of a job that another process runs, as far as its file tells; the FMLMS notes them."""
        for record in (r for r in self._recorded() if r.round > self._looked):
            self._service.progress(self._request, record.round)
            self.on_round(record)
            self._looked = record.round

    def _recorded(self) -> list[Round]:
        """Rounds in the job's file, as far as whole lines of it tell: the other process may be writing one."""
        path = self._bed.folder / JOB / ROUNDS
        text = path.read_text() if path.is_file() else ""
        return [Round.model_validate_json(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def _last(self) -> int:
        """The last round before this process; none where there is no checkpoint to go on from."""
        from cellwright.federation.runtimes.jobs import CHECKPOINT

        begun = (self._bed.folder / JOB / CHECKPOINT).is_file()
        return max((record.round for record in self._recorded()), default=0) if begun else 0

    def keep(self) -> None:
        """Add the time of this process to that of earlier ones."""
        path = self._bed.folder / JOB / WALL
        before = float(path.read_text()) if path.is_file() else 0.0
        write_text(path, f"{before + time.monotonic() - self._began:.3f}\n")


def wall_s(bed: Bed) -> float:
    """Seconds of all processes that worked on the rounds."""
    path = bed.folder / JOB / WALL
    return float(path.read_text()) if path.is_file() else 0.0
