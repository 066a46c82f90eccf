"""The scheduler at work (M.3387 8.5): over what the database holds now, with places found by selection (8.2)."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cellwright.errors import FederationError
from cellwright.federation.management.core import Core, active, all_nodes, all_statuses, change
from cellwright.federation.management.interface2 import all_holdings
from cellwright.federation.management.records import Capacity, Choice, Submitted
from cellwright.federation.management.scheduling import Nodes, Scheduler, Start
from cellwright.federation.management.selection import best, choose, names


class Desk:
    """The scheduler over what the database holds now, and why requests could not be placed."""

    def __init__(self, core: Core, connection: sa.Connection, any_data: bool = False, most: int | None = None) -> None:
        self._core, self._connection, self._most = core, connection, most
        self._nodes, self._statuses = all_nodes(connection), all_statuses(connection, core)
        self._holdings = None if any_data else all_holdings(connection)
        self.why: dict[str, str] = {}
        self.choices: dict[str, tuple[Choice, ...]] = {}
        self.scheduler = Scheduler({name: status.free for name, status in self._statuses.items()}, self._place)
        for submitted, nodes in active(connection):
            if submitted.status == "running":
                self.scheduler.begin(submitted, nodes)
            else:
                self.scheduler.add(submitted)

    def next(self, only: str | None) -> Start | None:
        """The next to start, or `only`, with all that come first begun as far as they can be."""
        while start := self.scheduler.next(self._core.clock()):
            if only in (None, start.id):
                return start
            self.scheduler.begin(self.scheduler.waiting[start.id], start.nodes)
        return None

    def explain(self) -> None:
        """Tell those that cannot start what they lack."""
        for id_ in self.scheduler.waiting:
            if id_ in self.why:
                change(self._connection, id_, reason=self.why[id_])

    def _place(self, submitted: Submitted, free: Mapping[str, Capacity]) -> Nodes | None:
        statuses = {
            name: status.model_copy(update={"free": free[name]}) for name, status in self._statuses.items() if name in free
        }
        spare = self._spare(submitted)
        try:
            choices = choose(
                submitted.request,
                [node for node in self._nodes if node.name in free and node.name != spare],
                statuses,
                rules=self._core.rules,
                holdings=self._holdings,
                weights=self._core.weights,
                most=self._most,
            )
        except FederationError as error:
            self.why[submitted.id] = str(error)
            return None
        self.why.pop(submitted.id, None)
        self.choices[submitted.id] = choices
        return names(choices)

    def _spare(self, submitted: Submitted) -> str | None:
        """The node that is kept out of the owners because nobody else could coordinate; None: there is another, or it is asked for."""
        heads = best("coordinator", self._nodes, self._statuses, rules=self._core.rules)
        only_owners = all("data_owner" in head.roles for head in heads)
        return heads[0].name if heads and only_owners and heads[0].name not in submitted.request.owners else None
