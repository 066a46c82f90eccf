"""Peak memory of a forecast, in a process of its own: `python -m cellwright.kpis._memory model.onnx inputs.npz`.

That process loads NumPy and ONNX Runtime only, as a device does; what else was loaded here would hide what the model needs.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cellwright.errors import TrainingError

_LIMIT_S = 120.0


def peak_memory_bytes(model: Path, feeds: Mapping[str, np.ndarray]) -> int:
    """Peak resident memory of a fresh process that loads `model` and answers one batch.

    Raises:
        TrainingError: the process failed or took over two minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **dict(feeds))  # type: ignore[arg-type]  # its stub takes the arrays for its own flags
        command = [sys.executable, "-m", "cellwright.kpis._memory", str(model), str(inputs)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise TrainingError(f"one batch of {model.name} took over {_LIMIT_S:.0f} s in a process of its own") from None
    if done.returncode:
        raise TrainingError(f"{model.name} could not be run in a process of its own: {done.stderr.strip()[-500:]}")
    return int(done.stdout)


def main(model: str, inputs: str) -> None:
    """Answer one batch and print the peak memory in bytes."""
    from cellwright.bundle.export import open_session

    with np.load(inputs, allow_pickle=False) as feeds:
        open_session(Path(model)).run(None, {name: feeds[name] for name in feeds.files})
    print(_peak_bytes())


def _peak_bytes() -> int:
    """High-water mark of this program alone: on Linux, getrusage's would still hold that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
