"""The named results of a federation: `federation.json` and `rounds.jsonl` in a candidate's folder."""

from __future__ import annotations

from typing import Any, Literal

from cellwright.results import DataVersion, EnergyReading, Result


class OwnerRound(Result):
    """One owner in one round."""

    owner: str
    outcome: Literal["counted", "late", "refused", "lost", "empty", "evaluated"]  # evaluated: asked for no update, only judged
    reason: str = ""  # where it was not counted
    steps: int = 0
    examples: int = 0
    staleness: int = 0
    train_loss: float | None = None
    mae: float | None = None  # of the new global model on its validation span, raw units
    seconds: float = 0.0  # on the channel's clock
    cpu_s: float = 0.0
    energy_j: float | None = None
    energy_source: Literal["measured", "modelled", "constant"] | None = None
    co2_g: float | None = None
    up_bytes: int = 0  # from the owner, exact
    down_bytes: int = 0
    weight: float = 0.0  # in the aggregate, where the rule weighs


class Round(Result):
    """One round: a line of rounds.jsonl."""

    round: int
    topology: int  # its version
    owners: list[OwnerRound]
    validation_loss: float | None
    mae: float | None  # over all owners' validation spans, raw units
    mse: float | None
    precision: float | None = None  # of a classification, as recall and AUC (M.3387 9.5)
    recall: float | None = None
    auc: float | None = None
    learning_rate: float
    epsilon: float | None = None  # privacy budget spent so far
    delta: float | None = None
    epsilon_unit: str = ""  # whose data it is about
    up_bytes: int
    down_bytes: int
    seconds: float
    decision: str = ""  # what quality management did, in words
    events: tuple[str, ...] = ()  # topology rebuilt, node dropped, preempted


class OwnerResult(Result):
    """One owner at the end."""

    owner: str
    sites: list[str]
    trained: bool = True  # it took part; else it was asked for its scaler and its test error alone
    scaler: str = ""  # why its sites take the mean of the others' scalers; "": they have their own
    examples: int
    rounds: int  # in which it was counted
    mae: float | None  # test span, raw units, with the federated model (its own, where owners end with their own)
    mae_alone: float | None = None  # of the same network trained on its own data alone
    mae_central: float | None = None  # of the same network trained on everyone's data
    contribution: float | None = None  # fall of the validation error in the rounds kept that is due to it (Shapley)
    contribution_loo: float | None = None  # by leaving it out
    reward: float | None = None
    reliability: float = 1.0
    cpu_s: float = 0.0
    energy_j: float | None = None
    energy_source: Literal["measured", "modelled", "constant"] | None = None
    co2_g: float | None = None
    up_bytes: int = 0
    down_bytes: int = 0


class Part(Result):
    """What one part of a federation took, with all its messages. Energies of coordinator and auditor: CPU-seconds × watts of a core."""

    name: Literal["deployment", "training", "contribution", "test"]
    wall_s: float  # at the coordinator
    up_bytes: int  # from the owners, exact
    down_bytes: int
    owners_cpu_s: float
    owners_energy_j: float | None = None
    owners_energy_source: Literal["measured", "modelled", "constant"] | None = None
    coordinator_cpu_s: float
    coordinator_energy_j: float | None = None
    auditor_cpu_s: float
    auditor_energy_j: float | None = None
    energy_source: Literal["measured", "modelled", "constant"] | None = None  # of coordinator and auditor
    co2_g: float | None = None  # of all three

    @property
    def energy_j(self) -> float | None:
        """Of owners, coordinator and auditor, as far as it is known; None: nothing is."""
        known = [j for j in (self.owners_energy_j, self.coordinator_energy_j, self.auditor_energy_j) if j is not None]
        return sum(known) if known else None


class Federated(Result):
    """A whole federation: `federation.json`."""

    key: str  # as in train.models: "fedavg:gru"
    rule: str
    rule_title: str
    rule_options: dict[str, Any]
    timing: Literal["synchronous", "semi_synchronous", "asynchronous"]
    model: str
    runtime: Literal["local", "deployed"]
    status: Literal["converged", "target", "rounds", "budget", "privacy_budget", "stopped", "failed"]
    reason: str
    rounds: int
    owners: list[OwnerResult]
    mae: float | None  # over all owners' test spans, raw units
    mae_validation: float | None
    mae_alone: float | None = None  # mean over owners, weighted by measured targets
    mae_central: float | None = None
    privacy: list[str]  # mechanisms
    epsilon: float | None = None
    delta: float | None = None
    epsilon_unit: str = ""
    compression: str
    up_bytes: int  # of the rounds; of everything: `parts`
    down_bytes: int
    seconds: float  # of the rounds, on the channel's clock
    wall_s: float  # of everything
    energy: EnergyReading | None  # of the owners, in the rounds; of everything: `parts`
    parts: tuple[Part, ...] = ()
    contribution_of: Literal["MAE", "1 − AUC"] = "MAE"  # what contributions are falls of, on the validation spans
    topology: dict[str, Any]  # management.records.Topology, the last one
    topologies: int  # versions of it there were
    audit_log: str | None  # file name beside this one
    audit_head: str | None  # hash of its last record
    data: DataVersion
    explanation: tuple[str, ...] = ()  # why this rule, these hyper-parameters, these nodes

    def part(self, name: str) -> Part | None:
        """What one part took; None: a result that did not tell parts apart yet."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def train_s(self) -> float:
        """Seconds of the rounds at the coordinator; of an older result, of everything."""
        training = self.part("training")
        return self.wall_s if training is None else training.wall_s

    @property
    def everything_bytes(self) -> tuple[int, int] | None:
        """(from the owners, to the owners) of all messages; None: an older result."""
        return (sum(p.up_bytes for p in self.parts), sum(p.down_bytes for p in self.parts)) if self.parts else None

    @property
    def everything_j(self) -> float | None:
        """Energy of all parts and roles, as far as it is known; None: nothing is."""
        known = [p.energy_j for p in self.parts if p.energy_j is not None]
        return sum(known) if known else None
