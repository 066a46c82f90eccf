"""The regulatory rules that the auditor holds every message against, and the form that updates of a training have (M.3387 9.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cellwright.federation.compression._contract import Codec
from cellwright.federation.contract import Arrays, Spec, Timing
from cellwright.params import Federation

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Rules(Spec):
    """What a message may be at most. None: no limit."""

    max_bytes: Count = 2**28  # of one message: its arrays and blobs
    budget_bytes: Count | None = None  # of all messages of one node
    max_norm: Positive | None = None  # Euclidean norm of an update, in units of the weights
    norm_ratio: Positive | None = 10.0  # the same, in medians of the round
    least_norms: Count = 3  # updates that a median is taken of at the least
    max_staleness: Annotated[int, Field(ge=0)] = 0  # rounds that an update may lie behind; 0: of this round
    max_steps: Count | None = None  # local steps that an owner may say it did
    budget_j: Positive | None = None  # energy that one node may say it spent, all rounds together
    examples_change: Positive = 0.5  # relative change of the windows an owner says it holds, against those deployed
    overtaking: bool = False  # whether a node's messages may come in another order than it signed them; never one twice
    half_life: Positive = 20.0  # messages after which one counts half in the reliability
    least_reliability: Share = 0.5  # below it a node is not reliable

    @classmethod
    def of(cls, params: Federation, timing: Timing) -> Rules:
        """As `params.yaml: federation` implies. Updates may be old only under a rule that is not synchronous."""
        waits = timing == "synchronous"
        return cls(
            max_steps=params.steps, budget_j=params.budget_j, max_staleness=0 if waits else params.rounds, overtaking=not waits
        )


@dataclass(frozen=True)
class Form:
    """What the arrays of an update must be."""

    like: Arrays | None  # names and shapes of an update; None: not known beforehand (a closed-form rule's statistics)
    codec: Codec | None = None  # that it is encoded with; None: as it is
    sealed: bool = False  # it comes as blobs that only the sum can be read from; norm and values cannot be checked
    extra: Arrays | None = None  # the rule's own arrays beside it; None: whatever the rule sends
