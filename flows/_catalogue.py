"""The choices that the forms of the Prefect UI offer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cellwright.catalogue import load_catalogue
from cellwright.families import members
from cellwright.params import load
from cellwright.workspace import find_root

ROOT = find_root(Path(__file__).parent)
DataSet = StrEnum("DataSet", {name: name for name in load_catalogue(ROOT / "data" / "catalogue.yaml").names})  # type: ignore[misc]
DEFAULT = DataSet(load(ROOT / "params.yaml").dataset)
Model = StrEnum("Model", {name: name for name in members("models")})  # type: ignore[misc]
Other = Annotated[
    str, Field(title="Preset, or a model of your own", pattern=r"^([a-z0-9_-]+:[a-z0-9_-]+|.+\.py(:.+)?|neuralforecast:\w+)$")
]
