"""What the FMLMS keeps: requests of clients (interface 1), nodes and topologies (interface 2). Units in names; JSON both ways.

Clauses are those of ITU-T M.3387 (03/2024).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from cellwright.federation.contract import Role, Spec

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
TaskType = Literal["regression", "classification"]
Priority = Literal["high", "medium", "low"]
Status = Literal["queued", "running", "preempted", "finished", "failed", "cancelled"]
DatasetName = Annotated[str, Field(min_length=1, max_length=128)]
Operation = Literal["train", "aggregate", "read_metadata", "audit"]


class Record(Spec):
    """As every Spec; and without infinities and NaN, which JSON cannot carry."""

    model_config = Spec.model_config | {"allow_inf_nan": False}


class Capacity(Record):
    """Resource capacities of a task or a node (8.1.2, 8.3.2–8.3.4)."""

    cpus: NotNegative = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    bandwidth_bps: NotNegative = 0  # of the uplink
    transmit_power_w: NotNegative = 0
    disk_bytes: Annotated[int, Field(ge=0)] = 0  # free
    reserved_bytes: Annotated[int, Field(ge=0)] = 0  # storage set aside in advance


class DataNeeds(Record):
    """What an owner's data must offer for a request (10.4)."""

    dataset: str
    targets: tuple[str, ...] = ()  # empty: those of the data set
    features: tuple[str, ...] = ()
    cadence_s: Positive | None = None
    least_windows: Count = 1


class ServiceRequest(Record):
    """A client asks for a model (8.1.1, 8.5; interface 1)."""

    name: Name
    task: TaskType = "regression"
    priority: Priority = "medium"
    importance: Annotated[int, Field(ge=0, le=10)] = 5
    delay_bound_s: Positive | None = None  # from submission to the model
    target: dict[str, float] = Field(default_factory=dict)  # metric -> value to reach: {"mse": 900}, {"auc": 0.9}
    budget_j: Positive | None = None
    budget_s: Positive | None = None
    data: DataNeeds
    per_node: Capacity = Capacity()  # what each data owner must have free
    owners: tuple[Name, ...] = ()  # asked for by name; empty: any that are fit
    exclusive: bool = False  # no other request on its owners while it runs
    least_owners: Count = 2
    params: dict[str, Any] = Field(default_factory=dict)  # sections of params.yaml laid over the operator's


class Submitted(Record):
    """A request as the FMLMS follows it."""

    id: str
    client: str
    request: ServiceRequest
    status: Status
    submitted: datetime
    started: datetime | None = None
    ended: datetime | None = None
    class_: str = Field("", alias="class")  # what classification made of it (8.5)
    position: int | None = None  # in the queue
    rounds: int = 0
    reason: str = ""  # of a failure, a preemption, a cancellation
    run: str = ""  # where its results lie

    model_config = Record.model_config | {"populate_by_name": True}


class Link(Record):
    """A way between two nodes (8.4.1)."""

    source: Name
    target: Name
    bandwidth_bps: NotNegative = 0  # 0: not known
    delay_ms: NotNegative = 0
    loss: Annotated[float, Field(ge=0, le=1)] = 0
    up: bool = True


class NodeProperties(Record):
    """A training node (8.2, 8.3)."""

    name: Name
    roles: tuple[Role, ...]  # it may take; it plays one a task
    capacity: Capacity = Capacity()
    layer: Literal["terminal", "edge", "cloud"] = "terminal"
    region: str = ""  # edge it belongs to, where the network has regions
    security: Annotated[int, Field(ge=0, le=5)] = 1  # assurance level, as the security rules understand it
    public_key: str = ""  # Ed25519, hex; empty: not yet known
    seconds_per_step: Positive = 0.01  # of local training, as it last reported
    sites: tuple[str, ...] = ()  # whose telemetry it holds


class NodeStatus(Record):
    """What a node last reported (interface 2, upwards)."""

    node: Name
    alive: bool = True
    free: Capacity = Capacity()  # for the FMLMS's tasks, those that run included: its capacity less what others use
    reliability: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of its messages that were in order and in time, ageing
    rounds: Annotated[int, Field(ge=0)] = 0
    contribution: float = 0.0
    reward: float = 0.0
    seen: datetime | None = None
    reason: str = ""  # why it is not alive, or was dropped


class Edge(Record):
    """A connection of a topology: updates flow from `child` to `parent`."""

    child: Name
    parent: Name


class Topology(Record):
    """Who talks to whom for one request (8.4.1)."""

    request: str
    kind: Literal["star", "hierarchy"]
    version: Count = 1  # raised by every reconstruction
    coordinator: Name
    auditor: Name | None = None
    regions: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # edge coordinator -> its owners; of a hierarchy
    edges: tuple[Edge, ...]
    owners: tuple[Name, ...]
    reason: str = ""  # why it was rebuilt; "" for the first


class Choice(Record):
    """Whether a node takes part, and why (8.2)."""

    node: Name
    chosen: bool
    score: float
    reasons: tuple[str, ...]


class Holding(Record):
    """What a node says of its data, so that the right owners can be found (10.4): the characteristic, never a value."""

    node: Name
    dataset: DatasetName
    targets: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    cadence_s: Positive | None = None
    windows: Annotated[int, Field(ge=0)] = 0  # it could train on


class TaskProperties(Record):
    """System properties of a task: its type and priority (8.1.1), the resources it needs (8.1.2)."""

    request: str
    task: TaskType
    priority: Priority
    importance: int
    class_: str = Field(alias="class")
    delay_bound_s: float | None
    owners: Count  # that `total` is for
    per_node: Capacity
    total: Capacity

    model_config = Record.model_config | {"populate_by_name": True}


class Grant(Record):
    """What a node may do for a request, by the security rules (8.2)."""

    node: Name
    request: str
    role: Role
    operations: tuple[Operation, ...]


class Training(Record):
    """How a request is trained; what the FMLMS decided, as the nodes must know it (9.1–9.3, 10.5)."""

    task: dict[str, Any] = Field(default_factory=dict)  # contract.Task
    algorithm: dict[str, Any] = Field(default_factory=dict)  # network, hyper-parameters
    aggregation: dict[str, Any] = Field(default_factory=dict)  # rule, its options, timing, rounds
    privacy: dict[str, Any] = Field(default_factory=dict)  # mechanism -> its options
    channel: dict[str, Any] = Field(default_factory=dict)  # encryption, signatures, compression


class ModelFile(Record):
    """A model as the FMLMS keeps it: the initial one for nodes, the trained one for the client (9.1)."""

    request: str
    kind: Literal["initial", "trained"]
    media_type: str
    sha256: str
    model_bytes: int


class Plan(Record):
    """All that one node must know for one request (interface 2, downwards; I.3, step 3)."""

    node: Name
    request: str
    role: Role
    operations: tuple[Operation, ...]
    task: TaskProperties
    properties: NodeProperties
    topology: Topology
    parent: Name | None  # where its updates go; None: it is the coordinator, or the auditor
    children: tuple[Name, ...]
    training: Training
    initial_model: ModelFile | None
