"""Warm starts: whether the weights of a forecaster mean anything to a candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellwright.errors import TrainingError
from cellwright.panel import PanelSchema
from cellwright.training.candidates import Candidate, as_json

_FORM = ("model", "options", "problem", "scaler", "clip", "sites")


def difference(start: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """What tells the form of a start (a forecaster's `about`) from the wanted one, in words; None if they are the same."""
    for what in _FORM:
        if start[what] != wanted[what]:
            return f"its {what} is {_short(start[what])}, this candidate's is {_short(wanted[what])}"
    return None


def unfit(folder: Path, candidate: Candidate, schema: PanelSchema) -> str | None:
    """Why the forecaster in `folder` is no start for the candidate, in words; None if it is one.

    Raises:
        TrainingError: there is no forecaster.
    """
    from cellwright.forecaster import FILE, Forecaster

    if not (folder / FILE).is_file():
        raise TrainingError(f"cannot start from {folder}: there is no {FILE} in it; train without a warm start")
    try:
        about = Forecaster.load(folder).about
    except TrainingError as error:  # its model has changed its form since
        return str(error)
    return difference(about, _wanted(candidate, schema, about["problem"]))


def _wanted(candidate: Candidate, schema: PanelSchema, started: Mapping[str, Any]) -> dict[str, Any]:
    """The form of the candidate. Neighbours that the start found by correlation are kept: the candidate looks for none."""
    settings, plain = candidate.settings, as_json(candidate)
    found = {"nearest": started["nearest"]} if "nearest" in started and not plain["problem"].get("nearest") else {}
    return {
        "model": candidate.model,
        "options": plain["options"],
        "problem": {**plain["problem"], **found},
        "scaler": settings.scaler,
        "clip": settings.clip,
        "sites": list(schema.sites),
    }


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"
