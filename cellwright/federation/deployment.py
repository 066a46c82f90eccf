"""Who has the task: deploys it to the nodes of a topology, and follows the topology when that changes (M.3387 8.4.1, 9.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cellwright.federation import messages
from cellwright.federation.contract import Parcel, Task, Value
from cellwright.federation.costs import Costs
from cellwright.federation.crew import Crew, Rebuild, views
from cellwright.federation.gathering import Gatherer
from cellwright.federation.ledger import Ledger
from cellwright.federation.management.records import Topology
from cellwright.federation.progress import Progress


@dataclass
class Deployment:
    """The task at the nodes."""

    task: Task
    told: Mapping[str, Value]  # to the owners, beside the task
    gatherer: Gatherer
    crew: Crew
    progress: Progress
    rebuild: Rebuild
    wait_s: float
    costs: Costs = field(default_factory=Costs)
    answers: dict[str, Parcel] = field(default_factory=dict)  # what each node said
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of each edge, as it was last told

    def deploy(self, nodes: Sequence[str]) -> None:
        """Send the task, and each node's part of the topology; who cannot take it takes no part."""
        parcels, post = self._parcels(nodes), self.gatherer.post
        with self.costs.messages("deployment") as ledger:
            came = post.ask("deploy", parcels, ledger, round_=self.progress.round, wait_s=self.wait_s)
            ledger.told(came.parcels)
        self.answers |= came.parcels
        self.regions |= {node: owners for node, owners in self.crew.topology.regions.items() if node in came.parcels}
        for node, parcel in came.parcels.items():
            self._meet(node, parcel)
        why = {**came.refused, **came.failed}
        why |= {node: "it did not answer in time" for node in parcels if node not in came.parcels and node not in why}
        for reason in dict.fromkeys(why.values()):
            self.drop([node for node in why if why[node] == reason], f"the task could not be deployed: {reason}")

    def notice(self, events: list[str], ledger: Ledger) -> None:
        """See who vanished and who came back, and rebuild the topology."""
        before = set(self.crew.gone)
        told = self.crew.notice(set(self.gatherer.post.channel.nodes()), self.rebuild)
        failing = self.drop(self.crew.failing(), "it failed too often in a row")
        for node in self.crew.out():
            if self.gatherer.flight.pop(node, None) is not None:
                ledger.left_out(node, "lost", "it vanished before its update came")
        if told:
            self._place()
        events += [words for words in (told, failing) if words]
        back = sorted(before - set(self.crew.gone))
        if back and self.answers:
            self.deploy(back)
        self._catch_up()

    def drop(self, nodes: Iterable[str], why: str) -> str:
        """Ask nodes no more; says what became of the topology."""
        told = self.crew.drop(nodes, why, self.rebuild)
        if told:
            self._place()
        return told

    def adopt(self, topology: Topology) -> None:
        """Go on with a topology that the FMLMS made; who is new in it is given the task."""
        self.crew.adopt(topology)
        self._place()
        self.notice([], Ledger())
        self.deploy([node for node in self.crew.peers() if node not in self.answers])

    def _catch_up(self) -> None:
        """Give the task to nodes that are new, and their owners to edges whose region changed. One at work is told when it is idle:
        its replies are to be opened in the order of what it was asked."""
        if not self.answers:
            return
        regions, idle = self.crew.topology.regions, [n for n in self.crew.peers() if n not in self.gatherer.flight]
        self.deploy([n for n in idle if n not in self.answers or (n in regions and regions[n] != self.regions.get(n))])

    def _place(self) -> None:
        self.gatherer.rule.place(self.crew.topology.regions)

    def _parcels(self, nodes: Sequence[str]) -> dict[str, Parcel]:
        topology = self.crew.topology
        seen, base = views(topology), messages.deploy(self.task, **self.told).values
        return {
            node: Parcel(
                values={
                    **base,
                    "role": "coordinator" if node in topology.regions else "data_owner",
                    "topology": seen[node].model_dump_json(),
                    "again": self.progress.attempt > 1 or node in self.answers,  # what it learnt then is not lost
                }
            )
            for node in nodes
            if node in seen
        }

    def _meet(self, node: str, reply: Parcel) -> None:
        """What a node says of itself when it takes the task."""
        examples, pace = reply.values.get("examples"), reply.values.get("seconds_per_step")
        if isinstance(examples, int) and examples >= 0:
            self.progress.examples[node] = examples
            if (auditor := self.gatherer.post.auditor) is not None:
                auditor.deployed(node, examples)
            if examples == 0:
                self.crew.empty.add(node)
        if isinstance(pace, float):
            self.gatherer.pacing.told(node, pace)
