"""Doors of publication, areas and placement rules."""

from __future__ import annotations

from cellwright.hub import contract as c
from cellwright.hub.doors.base import Asking, owned


class Placing(Asking):
    """Publication, areas and placement rules."""

    def publication(self, model: str, *, owner: str | None = None) -> c.Published:
        """What is published of a model."""
        return self._get(f"/v1/models/{model}/publication", c.Published, owned(owner))

    def publish(self, model: str, publication: c.Publication, *, expected: int | None = None) -> c.Published:
        """Make a version the one in use (and give others shares of the requests). The edges concerned are told at once.

        `expected`: the `number` of the publication that this one replaces (0: none); `Changed` is raised where another was quicker.
        """
        headers = {} if expected is None else {"If-Match": f'"{expected}"'}
        content = publication.model_dump(mode="json")
        return self._parsed(self._send("POST", f"/v1/models/{model}/publication", json=content, headers=headers), c.Published)

    def unpublish(self, model: str) -> None:
        """Take a model off all edges; its releases stay."""
        self._send("DELETE", f"/v1/models/{model}/publication")

    def areas(self) -> tuple[c.Area, ...]:
        """This tenant's areas and the operator's."""
        return self._get("/v1/areas", tuple[c.Area, ...])

    def put_area(self, area: str, form: c.AreaForm) -> c.Area:
        """Make or change an area."""
        return self._put(f"/v1/areas/{area}", form, c.Area)

    def delete_area(self, area: str) -> None:
        """Delete an area that no rule names."""
        self._send("DELETE", f"/v1/areas/{area}")

    def placement(self) -> tuple[c.PlacementRule, ...]:
        """This tenant's rules, the highest priority first."""
        return self._get("/v1/placement", tuple[c.PlacementRule, ...])

    def place(self, rule: str, form: c.PlacementForm) -> c.PlacementRule:
        """Make or change a rule."""
        return self._put(f"/v1/placement/{rule}", form, c.PlacementRule)

    def delete_rule(self, rule: str) -> None:
        """Delete a rule."""
        self._send("DELETE", f"/v1/placement/{rule}")
