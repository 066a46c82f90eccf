"""Where the candidates of a run start from: fresh weights, or those of the present champion (`train.warm_start`, `federation.initial`)."""

from __future__ import annotations

from dataclasses import dataclass

from cellwright.files import read_json, write_json
from cellwright.params import Params
from cellwright.registry.champions import of_params
from cellwright.results import DataVersion, Trained
from cellwright.workspace import Workspace

_DECIDED = "warm_start.json"  # in the run's folder: a resumed run starts from what it started from, whoever is champion by then

_INITIAL = "initial_model.json"  # likewise, of a federation


@dataclass(frozen=True)
class Start:
    """Folder of the forecaster that a candidate starts from, by its key, and in a sentence why."""

    folders: dict[str, str]
    sentence: str


def start(params: Params, ws: Workspace, version: DataVersion) -> Start:
    """Decided once a run. Whether the champion's form fits its candidate is for training to see, and to record.

    Raises:
        RegistryError: the store cannot be used, or the champion's files are gone.
    """
    if params.train.warm_start == "none":
        return Start({}, "all candidates start from fresh weights")
    kept = ws.run_folder / _DECIDED
    if not kept.is_file():
        found = _decided(params, ws, version)
        write_json(kept, {"folders": found.folders, "sentence": found.sentence})
    return Start(**read_json(kept))


@dataclass(frozen=True)
class Initial:
    """Folder of the forecaster that a federation starts from, and in a sentence why; None: fresh weights, from the seed."""

    folder: str | None
    sentence: str


def initial(params: Params, ws: Workspace) -> Initial:
    """The initial model of a federation (M.3387 9.1): the data set's champion, where `federation.initial` asks for it.

    Decided once a run. Whether its form fits the federated network is for training to see, and to record.

    Raises:
        RegistryError: the store cannot be used, or the champion's files are gone.
    """
    if params.federation.initial == "seed":
        return Initial(None, "the owners start from fresh weights, drawn from the seed (federation.initial)")
    kept = ws.run_folder / _INITIAL
    if not kept.is_file():
        champion = of_params(params, ws)
        if champion is None or champion.folder is None:
            found = Initial(None, "there is no champion yet: the owners start from fresh weights, drawn from the seed")
        else:
            found = Initial(
                str(champion.folder), f"the owners start from the registry's champion, {champion.model_name} {champion.semantic}"
            )
        write_json(kept, {"folder": found.folder, "sentence": found.sentence})
    return Initial(**read_json(kept))


def _decided(params: Params, ws: Workspace, version: DataVersion) -> Start:
    champion = of_params(params, ws)
    if champion is None or champion.folder is None:
        return Start({}, "there is no champion yet: all candidates start from fresh weights")
    trained, name = Trained.read(champion.folder / "candidate.json"), f"{champion.model_name} {champion.semantic}"
    if trained.data.hash == version.hash:
        return Start({}, f"{name} was trained on this very data version: all candidates start from fresh weights")
    if trained.key not in params.train.models:
        return Start({}, f"{name} is {trained.title}, which is not among the candidates: all start from fresh weights")
    return Start({trained.key: str(champion.folder)}, f"{trained.title} starts from the weights of {name}")
