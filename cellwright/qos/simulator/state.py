"""Where a running simulator is and which tokens it takes: one small file that other commands of the project read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellwright.errors import QosError

if TYPE_CHECKING:
    from cellwright.qos.simulator.network import Network

CLIENT = "cellwright"


class State(BaseModel):
    """A simulator that runs. `token`: of the API consumer "cellwright"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    token: str = Field(repr=False)
    control_token: str = Field(repr=False)


def state_of(network: Network) -> bytes:
    """What to write of a network that runs, with a new token."""
    state = State(url=network.url, token=network.token(CLIENT), control_token=network.control_token)
    return json.dumps(state.model_dump()).encode()


def read_state(path: Path) -> State | None:
    """The simulator that runs; None: none does. Raises QosError: the file is something else."""
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise QosError(
            f"{path} cannot be read ({type(error).__name__}); delete it and start `cellwright network serve` again"
        ) from error
