"""CPU-seconds and memory of this process and of everything it started."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """A snapshot; differences of two are what was used in between."""

    at_s: float  # monotonic clock
    cpu_s: float  # of the process, its live children and those that ended
    thread_s: float  # of the calling thread
    machine_busy_s: float  # CPU-seconds of everyone on this machine
    memory_bytes: int  # resident, with live children


def usage() -> Usage:
    """Take a snapshot; about 1 ms."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    live_s, live_bytes = _live_children()
    return Usage(
        at_s=time.monotonic(),
        cpu_s=time.process_time() + ended.ru_utime + ended.ru_stime + live_s,
        thread_s=time.thread_time(),
        machine_busy_s=machine_busy_s(),
        memory_bytes=psutil.Process().memory_info().rss + live_bytes,
    )


def machine_busy_s() -> float:
    """CPU-seconds that all cores of the machine have worked since it started."""
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - waiting)


def _live_children() -> tuple[float, int]:
    cpu_s, memory = 0.0, 0
    for pid in _descendants(os.getpid()):
        try:
            process = psutil.Process(pid)
            times, resident = process.cpu_times(), process.memory_info().rss
        except psutil.Error:  # it ended between being listed and being read; its parent's figures have it now
            continue
        cpu_s += times.user + times.system + times.children_user + times.children_system
        memory += resident
    return cpu_s, memory


def _descendants(pid: int) -> list[int]:
    lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not lists:  # a kernel without these lists, or no Linux: psutil looks through every process, which is slower
        return [child.pid for child in psutil.Process(pid).children(recursive=True)] if psutil.pid_exists(pid) else []
    children = [int(child) for path in lists for child in _words(path)]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the thread ended meanwhile
        return []
