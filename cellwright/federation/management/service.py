"""The federated machine learning management system (FMLMS) of ITU-T M.3387, as functions.

    with open_fmlms(ws, params) as fmlms:           # opening.py
        fmlms.register(NodeProperties(name="hub", roles=("coordinator",), layer="cloud", security=3))
        asked = fmlms.submit(ServiceRequest(name="load", data=DataNeeds(dataset="city")), client="planner")
        start = fmlms.next(only=asked.id)            # its turn, its nodes, reserved
        topology = fmlms.form(asked.id)              # roles, permissions, who talks to whom
        fmlms.configure(asked.id, Training(...))     # what the nodes get with `plan_for`
        ...                                          # between rounds: progress, should_preempt, tend
        fmlms.deliver(asked.id, path)                # the client fetches it with `model`

interface1.py  clients      interface2.py, plans.py  nodes      operation.py  turns, roles, topology      tokens.py  who asks
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from cellwright.federation.management.core import Core, Vault, utc
from cellwright.federation.management.interface1 import Interface1
from cellwright.federation.management.operation import Operations
from cellwright.federation.management.permissions import SecurityRules
from cellwright.federation.management.plans import Plans
from cellwright.federation.management.selection import Weights
from cellwright.federation.management.store import Store
from cellwright.federation.management.tokens import Tokens


class Fmlms(Interface1, Plans, Operations, Tokens):
    """The FMLMS over one database, which other processes may use at the same time; safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        rules: SecurityRules | None = None,
        weights: Weights | None = None,
        clock: Callable[[], datetime] = utc,
        silent_s: float | None = None,
        vault: Vault | None = None,
    ) -> None:
        """Open the database at an SQLAlchemy URL; it is made and migrated as needed.

        Args:
            rules: the security rules of 8.2.
            weights: of the score by which owners are chosen.
            clock: now, with a time zone.
            silent_s: a node that was not heard of for longer is taken as dead; None: never.
            vault: encrypts models and metadata in the database (10.2).

        Raises:
            WrongUse: the URL cannot be meant.
            FederationError: the database cannot be reached.
        """
        Core.__init__(self, Store(url), rules or SecurityRules(), weights or Weights(), clock, silent_s, vault)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
