"""The most memory that a training took, where it can be told from what else its process holds."""

from __future__ import annotations

import psutil
import torch

_trainings: list[int] = []  # that this process has begun; appending is safe among threads


def begin() -> None:
    """Another training begins in this process."""
    _trainings.append(len(_trainings))


def forget(device: torch.device) -> None:
    """What was allocated on a GPU before this training is not its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Bytes at the most until now.

    On a GPU: what torch had allocated since `forget`; candidates in threads of one process show their common peak. On the CPU:
    the whole process now, with torch and the panel. A process gives back little of what it once took, so once it has begun
    another training (a worker's next candidate, a trial of a search, a thread) its memory is not that of one: None.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss) if len(_trainings) == 1 else None
