"""Exact differences between two versions of a file: a device that holds one version gets the next with fewer bytes.

`make(base, target, out)` writes the smallest patch, `apply(base, patch, target)` rebuilds the target's exact bytes, `inspect(patch)`
says what a patch is for, and `pays(patch, full_bytes)` says whether it is worth offering. docs/delta.md describes the format.
"""

from cellwright.delta.binary import FileId
from cellwright.delta.making import DEFAULT_MODES, make
from cellwright.delta.patch import Patch, inspect
from cellwright.delta.policy import Policy, pays
from cellwright.delta.rebuilding import apply

__all__ = ["DEFAULT_MODES", "FileId", "Patch", "Policy", "apply", "inspect", "make", "pays"]
