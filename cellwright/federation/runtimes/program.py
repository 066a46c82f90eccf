"""One of Flower's programs, in a process that ends when the one that asked for it ends: `python -m …program NAME ARGUMENTS`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from cellwright.processes import obey_parent

PROGRAMS = ("flower-superlink", "flower-supernode")


def main() -> None:
    """Run it in this process."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        raise SystemExit(f"expected one of {', '.join(PROGRAMS)}, found '{name}'")
    obey_parent()
    sys.argv = sys.argv[1:]
    (entry,) = entry_points(group="console_scripts", name=name)
    entry.load()()


if __name__ == "__main__":
    main()
