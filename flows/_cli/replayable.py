"""What `dvc repro` cannot replay: `make repro` asks before DVC starts, and a training asks that DVC has started."""

from __future__ import annotations

import os

import typer

from cellwright.errors import ParamsError
from cellwright.families import members
from cellwright.params import Params


def add_to(app: typer.Typer) -> None:
    """Add the command that `make repro` calls."""
    app.command("replayable", hidden=True)(replayable)


def replayable() -> None:
    """Say what of params.yaml DVC cannot replay."""
    from flows._cli.common import parameters, workspace

    check_replayable(parameters(workspace(), None))


def under_dvc() -> bool:
    """Whether DVC has started this process, for a stage of its own."""
    return "DVC_STAGE" in os.environ


def check_replayable(params: Params) -> None:
    """A stage of DVC watches files that dvc.yaml names, models/<key>.py among them; what they do not cover is refused.

    Raises:
        ParamsError: an entry of `train.models` that is no file of the zoo, or series, whose files may change unseen.
    """
    if strange := [key for key in params.train.models if key not in members("models")]:
        raise ParamsError(
            f"train.models: DVC replays models of the zoo by the names of their files, so not '{strange[0]}'; take it out, with "
            "train.settings in place of a preset, or use `cellwright run`"
        )
    if params.problem.exogenous:
        raise ParamsError(
            f"problem.exogenous: DVC does not watch {params.problem.exogenous[0]}, so that a change of it would go unseen; leave it "
            "empty, or use `cellwright run`"
        )
