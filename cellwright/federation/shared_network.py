"""One network object a task and process: whoever trains or evaluates puts his weights into it first. On the CPU."""

from __future__ import annotations

import threading
import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from cellwright.errors import Refused
from cellwright.federation.contract import Arrays, Local, Task
from cellwright.federation.initial import load, network_of, task_from, travelling
from cellwright.federation.owner_data import OwnerData
from cellwright.training.losses import forecast_loss
from models._contract import Batch, Network

_TIMED_WINDOWS = 32


class SharedNetwork:
    """The network of a task; hold `lock` from loading weights to taking them out."""

    def __init__(self, task: Task) -> None:
        self.network: Network = network_of(task)
        self.lock = threading.RLock()
        self.closed_form = self.network.closed_form
        self._travelling = travelling(self.network)
        self.parameters: dict[str, nn.Parameter] = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self.first = self.arrays()  # weights as they were built
        self._whole = {name: tensor.clone() for name, tensor in self.network.state_dict().items()} if self.closed_form else {}
        self._loss = task.loss
        self._optimizers: dict[object, torch.optim.Optimizer] = {}
        self._seconds_per_step: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Arrays that travel, in the network's order."""
        return tuple(self._travelling)

    def load(self, owner: str, arrays: Arrays) -> None:
        """Put weights in.

        Raises:
            Refused: an array too few, too many, of another shape, or with values that are not finite.
        """
        if self.closed_form:  # tables of trees have sizes of their own
            self.reset()
            load(self.network, arrays)
            self._travelling = travelling(self.network)
            return
        if set(arrays) != set(self._travelling):
            differing = sorted(set(arrays) ^ set(self._travelling))
            raise Refused(
                f"{owner}: the weights and the deployed network differ in {', '.join(differing[:3])}; deploy the task again"
            )
        for name, tensor in self._travelling.items():
            array = arrays[name]
            if array.shape != tuple(tensor.shape) or array.dtype != np.float32:
                raise Refused(
                    f"{owner}: '{name}' is {array.dtype.name} {array.shape}, the deployed network's is float32 {tuple(tensor.shape)}"
                )
            tensor.copy_(_tensor(array))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self._travelling.values()):
            raise Refused(f"{owner}: the weights it was sent hold values that are not finite; nothing was trained")

    def arrays(self) -> Arrays:
        """Copies of the weights that travel."""
        return {name: tensor.numpy().copy() for name, tensor in self._travelling.items()}

    def optimizer(self, local: Local, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser that remembers nothing; made once for equal settings, since making one costs as much as a small step."""
        key = (local.optimizer, local.learning_rate, local.weight_decay, local.frozen, local.dp_sgd is None)
        if key not in self._optimizers:
            self._optimizers.clear()
            chosen, rate, decay = list(parameters.values()), local.learning_rate, local.weight_decay
            self._optimizers[key] = (
                torch.optim.SGD(chosen, lr=rate, weight_decay=decay)
                if local.optimizer == "sgd"
                else torch.optim.AdamW(chosen, lr=rate, weight_decay=decay, fused=local.dp_sgd is None)
            )
        self._optimizers[key].state.clear()
        return self._optimizers[key]

    def reset(self) -> None:
        """A closed form as it was built: what was fitted here is not left for others."""
        if self._whole:
            self.network.load_state_dict(self._whole)
            self._travelling = travelling(self.network)

    def seconds_per_step(self, data: OwnerData) -> float:
        """Of training on this machine, a step of a few windows; measured once, since it is the machine's and not the owner's."""
        with self.lock:
            if self._seconds_per_step is None:
                batch = data.batch(self.network, data.training, np.arange(min(_TIMED_WINDOWS, len(data.training))))
                self._step(batch)  # the first one prepares what later ones find ready
                begun = time.perf_counter()
                self._step(batch)
                self._seconds_per_step = max(time.perf_counter() - begun, 1e-6)
            return self._seconds_per_step

    def _step(self, batch: Batch) -> None:
        """Forward and backward; no weight changes."""
        self.network.eval()
        total, count = forecast_loss(self._loss, self.network.problem, self.network(batch.x, batch.known), batch)
        torch.autograd.grad(total / count.clamp(min=1), list(self.parameters.values()), allow_unused=True)


@lru_cache(maxsize=8)
def shared_network(task_json: bytes) -> SharedNetwork:
    """The one network of this process for a task.

    Raises:
        Refused: as `network_of`.
    """
    return SharedNetwork(task_from(task_json))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())
