"""Champions: who serves, and how a person changes that."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.bundle.store import bundle_name
from cellwright.errors import RegistryError, UnknownName
from cellwright.files import whole_folder
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.registry.names import model_name
from cellwright.registry.store import reading, writing
from cellwright.registry.versions import CHALLENGER, champion_of, crown, step_back, uncrown
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel


@dataclass(frozen=True)
class Champion:
    """One registered model and who serves it. `version` is None where no version was made champion yet."""

    model_name: str
    version: str | None
    semantic: str | None
    model: str | None  # title: "PatchTST"
    since: str | None  # ISO 8601
    challenger: str | None  # version number
    versions: int
    data_version: str | None
    test_mae: str | None  # with its unit
    train_energy: str | None  # with unit and source
    run: str | None
    folder: Path | None = None  # where `champion` has put it


def list_champions(ws: Workspace) -> tuple[Champion, ...]:
    """Every registered model with its champion, by name; none where nothing was registered yet."""
    if _untouched(ws):
        return ()
    with reading(ws) as client:
        return tuple(_champion(client, model) for model in _models(client))


def promote(ws: Workspace, model_name: str, version: str) -> Champion:
    """Make a version the champion, whatever its KPIs; the one before is remembered for `rollback`.

    Raises:
        UnknownName: no such model or version.
        RegistryError: the store cannot be used.
    """
    with writing(ws) as client:
        _known_model(client, model_name)
        _known_version(client, model_name, version)
        crown(client, model_name, version)
        return _champion(client, client.get_registered_model(model_name))


def rollback(ws: Workspace, model_name: str) -> Champion:
    """Make the champion before the present one champion again.

    Raises:
        UnknownName: no such model.
        RegistryError: there was none before; or the store cannot be used.
    """
    with writing(ws) as client:
        _known_model(client, model_name)
        if step_back(client, model_name) is None:
            raise RegistryError(
                f"{model_name} had no champion before the present one (version {champion_of(client, model_name) or 'none'}); "
                "choose a version with `cellwright champion promote`"
            )
        return _champion(client, client.get_registered_model(model_name))


def champion(ws: Workspace, model_name: str) -> Path:
    """Folder with the champion's forecaster (candidate.json, forecaster.safetensors), fetched once a version.

    Raises:
        UnknownName: no such model.
        RegistryError: it has no champion, or its files are gone; or the store cannot be used.
    """
    with reading(ws) as client:
        _known_model(client, model_name)
        version = champion_of(client, model_name)
        if version is None:
            raise RegistryError(
                f"{model_name} has no champion yet; register a run, or `cellwright champion promote {model_name} VERSION`"
            )
        return fetch(client, ws, model_name, version)


def present(params: Params, ws: Workspace) -> Champion:
    """The champion of the data set and problem that the parameters name, with its forecaster in `folder`.

    Raises:
        RegistryError: there is none; or the store cannot be used.
    """
    found = of_params(params, ws)
    if found is None:
        name = name_of(params, ws)
        raise RegistryError(f"{name} has no champion yet; `cellwright run --dataset {params.dataset}` makes one")
    return found


def of_params(params: Params, ws: Workspace) -> Champion | None:
    """As `present`; None if there is no champion yet.

    Raises:
        RegistryError: the store cannot be used, or its files are gone.
    """
    name = name_of(params, ws)
    found = next((c for c in list_champions(ws) if c.model_name == name), None)
    return None if found is None or found.version is None else replace(found, folder=champion(ws, name))


def number(ws: Workspace, model_name: str) -> str | None:
    """Number of the version that is champion; None: there is none, or no such model."""
    if _untouched(ws):
        return None
    with reading(ws) as client:
        return champion_of(client, model_name) if model_name in {m.name for m in _models(client)} else None


def give_back(ws: Workspace, model_name: str, version: str, before: str | None, why: str) -> None:
    """Take the alias `champion` from `version`, if it has it, and give it back to `before`; None: nobody had it.

    Raises:
        UnknownName: no such model.
        RegistryError: the store cannot be used.
    """
    with writing(ws) as client:
        _known_model(client, model_name)
        if champion_of(client, model_name) == version != before:
            uncrown(client, model_name, version, before)
        client.set_model_version_tag(model_name, version, "verdict", why)


def registered_as(ws: Workspace, bundle: str, version: str) -> tuple[str, str] | None:
    """(registered model, version's number) behind a published bundle; None where it was never registered."""
    if _untouched(ws):
        return None
    semantic = version.partition("+")[0]
    with reading(ws) as client:
        for model in _models(client):
            if bundle_name(model.name) == bundle:
                found = client.search_model_versions(f"name='{model.name}'", max_results=10_000)
                numbers = [str(v.version) for v in found if v.tags.get("semantic") == semantic]
                return (model.name, numbers[0]) if numbers else None
    return None


def name_of(params: Params, ws: Workspace) -> str:
    """Name under which a run of these parameters is registered."""
    targets = params.problem.targets or Panel.open(ws.panel(params.dataset)).schema.targets
    return model_name(params.dataset, targets, params.problem.history, params.problem.horizon)


def fetch(client: MlflowClient, ws: Workspace, model_name: str, version: str) -> Path:
    """The forecaster folder of a version: from the cache in the state folder, else from the artifacts of its run.

    Raises:
        RegistryError: its run holds no forecaster any more.
    """
    run_id = client.get_model_version(model_name, version).run_id
    folder = ws.state / "champions" / model_name / f"{version}-{run_id}"
    if folder.is_dir():
        return folder
    if not client.list_artifacts(run_id, "forecaster"):
        raise RegistryError(
            f"version {version} of {model_name} has no forecaster among the artifacts of its run {run_id}: they were deleted or lie "
            "elsewhere; promote another version"
        )
    with tempfile.TemporaryDirectory() as aside, whole_folder(folder) as place:
        shutil.copytree(client.download_artifacts(run_id, "forecaster", aside), place, dirs_exist_ok=True)
    return folder


def _untouched(ws: Workspace) -> bool:
    uri = ws.mlflow_uri
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()


def _models(client: MlflowClient) -> list[RegisteredModel]:
    found, token = [], None
    while True:
        page = client.search_registered_models(order_by=["name ASC"], page_token=token)
        found += page
        if not (token := page.token):
            return found


def _known_model(client: MlflowClient, name: str) -> None:
    names = [model.name for model in _models(client)]
    if name not in names:
        raise UnknownName("registered model", name, names, "`cellwright champion list` shows them.")


def _known_version(client: MlflowClient, name: str, version: str) -> None:
    versions = [str(v.version) for v in client.search_model_versions(f"name='{name}'", max_results=10_000)]
    if version not in versions:
        raise UnknownName(f"version of {name}", version, versions)


def _champion(client: MlflowClient, model: RegisteredModel) -> Champion:
    number = champion_of(client, model.name)
    tags = client.get_model_version(model.name, number).tags if number is not None else {}
    return Champion(
        model_name=model.name,
        version=number,
        semantic=tags.get("semantic"),
        model=tags.get("model"),
        since=tags.get("champion.since"),
        challenger=None if CHALLENGER not in model.aliases else str(model.aliases[CHALLENGER]),
        versions=len(client.search_model_versions(f"name='{model.name}'", max_results=10_000)),
        data_version=tags.get("data.version"),
        test_mae=tags.get("test mae"),
        train_energy=tags.get("train energy"),
        run=tags.get("run"),
    )
