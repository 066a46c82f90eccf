"""What a flow is given: by its device's cell without a session, by the profile with one.

With a session a flow has its profile's guaranteed rate and an equal share of what the cell has left beyond all guarantees, up to the
profile's maximum (none named: exactly the guaranteed rate). A profile that names a packet loss rate also spares the flow all stalls.
"""

from __future__ import annotations

from cellwright.qos.forms import QosStatus
from cellwright.qos.simulator.clock import Clock
from cellwright.qos.simulator.options import Cell, Place
from cellwright.qos.simulator.sessions import Held, Sessions
from cellwright.qos.simulator.shaper import Conditions, Path, Rules
from cellwright.qos.simulator.terrain import Terrain


class NetworkRules(Rules):
    """Conditions from the sessions of a network."""

    def __init__(self, terrain: Terrain, sessions: Sessions, clock: Clock) -> None:
        self._terrain, self._sessions, self._clock = terrain, sessions, clock

    def device_at(self, address: str) -> str:
        """The device's name, or its address where the network does not know it."""
        found = self._terrain.at_address(address)
        return found.name if found else address

    def conditions(self, path: Path) -> Conditions:
        """What a path is given now."""
        device = self._terrain.devices.get(path.device)
        cell = self._terrain.cell_of(device or Place())
        held = self._session(path)
        if held is None:
            return Conditions(
                path.device, cell.background_down_bit_s, cell.background_up_bit_s, cell.delay_s, cell.stalls_per_s, cell.stall_s
            )
        stalls_per_s = 0.0 if held.profile.packet_error_loss_rate else cell.stalls_per_s
        up = held.profile.guaranteed_bit_s(upstream=True) or cell.background_up_bit_s
        return Conditions(str(held.id), self._down(held, cell), up, cell.delay_s, stalls_per_s, cell.stall_s)

    def _session(self, path: Path) -> Held | None:
        """The session that a path's packets belong to: the edge's own address counts, and that of the entrance that stands for it."""
        found = (h for h in self._sessions.at(path.device) if h.status is QosStatus.AVAILABLE and _belongs(h, path))
        return next(found, None)

    def _down(self, held: Held, cell: Cell) -> float | None:
        guaranteed = held.profile.guaranteed_bit_s()
        if guaranteed is None:
            return cell.background_down_bit_s
        most = held.profile.most_bit_s()
        if most is None or most <= guaranteed:
            return guaranteed
        given = self._sessions.given_in(cell)
        spare = cell.capacity_bit_s - sum(other.profile.guaranteed_bit_s() or 0.0 for other in given)
        return min(most, guaranteed + max(0.0, spare) / max(1, len(given)))


def _belongs(held: Held, path: Path) -> bool:
    asked = held.asked
    if asked.device_ports and not asked.device_ports.covers(path.device_port):
        return False
    ports = asked.application_server_ports
    return any(
        asked.application_server.covers(host) and (ports is None or ports.covers(port))
        for host, port in (path.target, path.entrance)
    )
