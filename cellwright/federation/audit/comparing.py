"""Two logs of the same messages, the coordinator's and the auditor's: the first record in which they differ (M.3387 8.3.1, 9.4).

Time, place and hash are each log's own, and so are notes that a log makes of itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cellwright.federation.audit.chain import LogVerdict, records, verify_log
from cellwright.federation.audit.shown import row_of, shared

_LONGEST = 200  # characters of a record in words


def compared(found: LogVerdict, log: Path, other: Path) -> LogVerdict:
    """The verdict on a log that is in order, held against the other, which must be in order too."""
    theirs = verify_log(other)
    why = f"{other}: {theirs.summary}" if not theirs.ok else difference(log, other)
    return replace(found, ok=False, reason=why) if why else found


def difference(log: Path, other: Path) -> str:
    """What the first difference is, in words; "": there is none."""
    for mine, theirs in zip_longest(_of_messages(log), _of_messages(other)):
        if mine is None:
            return f"{log.name} ends before line {theirs['index'] + 1} of {other}: there {_words(theirs)}"
        if theirs is None:
            return f"{other} ends before line {mine['index'] + 1} of {log.name}: there {_words(mine)}"
        if row_of(mine) != row_of(theirs):
            return f"line {mine['index'] + 1}: {_words(mine)}; line {theirs['index'] + 1} of {other}: {_words(theirs)}"
    return ""


def _of_messages(log: Path) -> Iterator[dict[str, Any]]:
    return (row for row in records(log) if shared(row))


def _words(row: dict[str, Any]) -> str:
    why = f" ({row['rule']}: {row['reason']})" if row["rule"] else ""
    told = f"'{row['kind']}' of '{row['node']}' in round {row['round']} is {row['verdict']}{why}"
    return f"{told[:_LONGEST]}, digest {str(row['digest'])[:16] or 'none'}"
