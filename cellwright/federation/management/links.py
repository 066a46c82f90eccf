"""What is known of the links between nodes, and how long an update takes over them."""

from __future__ import annotations

from collections.abc import Iterable

from cellwright.federation.management.records import Link

UPDATE_BYTES = 1_000_000  # what links are compared with: an update of 250,000 float32 weights
WORTH_MOVING = 2.0  # a link is given up for one that is faster by this factor; less would move nodes to and fro


class Network:
    """Links by their two ends. A pair that no link is listed for can be used, and nothing is known of its speed.

    Parcels go both ways, so a pair is down as soon as either direction is, and as slow as the slower one.
    """

    def __init__(self, links: Iterable[Link]) -> None:
        self._links: dict[frozenset[str], list[Link]] = {}
        for link in links:
            self._links.setdefault(frozenset((link.source, link.target)), []).append(link)

    def up(self, one: str, other: str) -> bool:
        """Whether two nodes reach each other; a link that loses everything is down."""
        return all(link.up and link.loss < 1 for link in self._links.get(frozenset((one, other)), ()))

    def seconds(self, one: str, other: str) -> float | None:
        """Time of an update of UPDATE_BYTES, lost packets sent again; None: not known."""
        known = [_seconds(link) for link in self._links.get(frozenset((one, other)), ()) if link.bandwidth_bps > 0]
        return max(known) if known else None

    def worse(self, node: str, parent: str, others: Iterable[str]) -> bool:
        """Whether the link to `parent` is clearly worse than the best to one of `others`, which can be reached."""
        here = self.seconds(node, parent)
        best = min((s for o in others if self.up(node, o) and (s := self.seconds(node, o)) is not None), default=None)
        return here is not None and best is not None and here > WORTH_MOVING * best


def _seconds(link: Link) -> float:
    return (link.delay_ms / 1000 + UPDATE_BYTES * 8 / link.bandwidth_bps) / (1 - link.loss) if link.loss < 1 else float("inf")
