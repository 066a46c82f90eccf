"""A recipe: which models, data sets and seeds a table is made of, as one YAML file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from cellwright.errors import ParamsError
from cellwright.params import Params, laid_over, load
from cellwright.sections import Count, Section

COLUMNS = (
    "mae",
    "rmse",
    "r2",
    "ssim",
    "parameters",
    "macs",
    "onnx_latency_p50_ms",
    "train_energy_j",
    "energy_per_1000_j",
)


class Part(Section):
    """One data set of the table."""

    dataset: str = Field(description="data set of the catalogue")
    title: str = Field("", description="what the part is called; else the data set's name")
    seeds: tuple[int, ...] = Field(
        (7, 8, 9), min_length=1, description="every model trains with each; the first is timed and weighed"
    )
    one_seed_below_per_s: Annotated[float, Field(ge=0)] = Field(
        0, description="networks that train on fewer windows a second take the first seed alone; 0: all take all"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="sections of params.yaml that differ here")


class Recipe(Section):
    """The whole file."""

    title: str
    about: str = Field("", description="a sentence or two for the head of the table")
    columns: tuple[str, ...] = Field(COLUMNS, description="KPIs that are shown; the JSON file beside the table has all of them")
    minutes: Count | None = Field(None, description="what the whole table may take; the table says whether it did")
    parts: tuple[Part, ...] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


def read(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        ParamsError: unreadable, an unknown key, a KPI that there is not, or a data set twice.
    """
    from cellwright.kpis._contract import names

    try:
        raw = yaml.safe_load(path.read_text())
        recipe = Recipe.model_validate(raw)
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"cannot read the recipe {path}: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise ParamsError(f"{path} is no recipe: " + "; ".join(lines)) from None
    cheap = (*names("forecast"), *names("cost"))
    if unknown := [c for c in recipe.columns if c not in cheap]:
        raise ParamsError(
            f"{path}: there is no KPI '{unknown[0]}' that is measured for all candidates; there are: {', '.join(cheap)}"
        )
    if wrong := [part.dataset for part in recipe.parts if "dataset" in part.set]:
        raise ParamsError(f"{path}: part {wrong[0]}: 'dataset' stands beside 'set', not in it")
    titles = [part.title or part.dataset for part in recipe.parts]
    if len(set(titles)) < len(titles):
        raise ParamsError(f"{path}: two parts are called the same; give each its own title")
    return recipe


def params_of(part: Part, root: Path, seed: int, models: tuple[str, ...] = ()) -> Params:
    """Parameters of one run of the table: params.yaml, the data set's own block, the part's sections, and the seed.

    With a seed that is not the part's first, errors alone are scored: speed, size and energy hardly depend on a seed.

    Raises:
        ParamsError: a section or key that there is not.
    """
    params = laid_over(load(root / "params.yaml", [f"dataset={part.dataset}"]), part.set, f"part {part.title or part.dataset}")
    train: dict[str, Any] = {"seed": seed, **({"models": list(models)} if models else {})}
    sections: dict[str, Any] = {"train": train}
    if seed != part.seeds[0]:
        sections["score"] = {"costs": False}
    if params.train.warm_start != "none":
        raise ParamsError(
            f"part {part.title or part.dataset}: train.warm_start is '{params.train.warm_start}', but in a table all start alike"
        )
    return laid_over(params, sections, "seed")
