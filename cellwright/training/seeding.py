"""One at a time: torch has one random state a process, and candidates may train in threads."""

from __future__ import annotations

import threading

lock = threading.Lock()
