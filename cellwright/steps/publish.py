"""Step `publish`: the champion as a signed bundle, where the edge finds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.bundle import media, store
from cellwright.bundle.contents import Measured, document, kpis, licence, lineage
from cellwright.bundle.layout import About, content_digest, pack
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import Published, Registered
from cellwright.training.own_model import public
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.bundle.manifest import Manifest
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster
    from cellwright.report.record import Record

_PARITY_WINDOWS = 256


def publish(params: Params, ws: Workspace) -> Published:
    """Pack the leaderboard's choice: export, hold to torch, quantise, measure, sign, place. The same run gives the same bytes.

    The version is the registered one; without a registration 0.0.0+<digest>. It becomes the latest if it was registered as
    champion, or if nothing is served under its name yet. Where a version of that number was published with other content, the
    digest is added to the number: published versions never change.

    Raises:
        BundleError: the model cannot be exported, or differs from torch by more than 1e-4.
        CellwrightError: the run has no leaderboard or no trained champion.
    """
    from cellwright.forecaster import Forecaster
    from cellwright.report import record as records

    record = records.read(ws)
    forecaster = Forecaster.load(record.champion.folder)
    registered = Registered.read(ws.registration) if ws.registration.is_file() else None
    model = _exported(forecaster, ws, record)
    int8 = ws.run_folder / "publish" / media.MODEL_INT8
    windows = _windows(ws, params, forecaster)
    measured = _measure(params, forecaster, windows, model, int8)
    contents = _contents(params, ws, record, windows, registered, measured) | {media.MODEL: model}
    if measured.int8_offered:
        contents[media.MODEL_INT8] = int8
    manifest = _packed(params, ws, record, registered, contents)
    path = store.place(ws.published, ws.bundle, manifest, activate=registered is not None and registered.champion)
    return _result(manifest, measured, model, int8, path, ws)


def unpublish(ws: Workspace, name: str, version: str) -> str | None:
    """Take a version back from the edge; where it was the latest, the one before it is again. Returns the latest now.

    Raises:
        BundleError: there is no such version.
    """
    return store.unpublish(ws.published, store.bundle_name(name), version)


def _exported(forecaster: Forecaster, ws: Workspace, record: Record) -> Path:
    """The ONNX file that scoring or an earlier publish made, if it is newer than the weights; else a new one."""
    from cellwright.bundle.export import export_onnx
    from cellwright.forecaster import FILE

    own = ws.run_folder / "publish" / media.MODEL
    weights_ns = (record.champion.folder / FILE).stat().st_mtime_ns
    for made in (ws.onnx(record.champion.key), own):
        if made.is_file() and made.stat().st_mtime_ns >= weights_ns:
            return made
    return export_onnx(forecaster, own)


def _windows(ws: Workspace, params: Params, forecaster: Forecaster) -> Windows:
    from cellwright.data.windows import Windows

    return Windows(Panel.open(ws.panel(params.dataset)), forecaster.problem)


def _measure(params: Params, forecaster: Forecaster, windows: Windows, model: Path, int8: Path) -> Measured:
    """Parity and errors on the validation span: INT8 is a choice, and choices are not made on the test span."""
    from cellwright.bundle.accuracy import mae, pick, samples
    from cellwright.bundle.export import open_session, parity
    from cellwright.data.split import spans

    span = spans(params.split, windows.panel.schema).validation
    origins, sites = pick(windows, span.start, span.stop)
    few = [sample for sample, _ in samples(windows, *pick(windows, span.start, span.stop, _PARITY_WINDOWS), batch=64)]
    apart = parity(forecaster, model, few)
    fp32 = mae(open_session(model), windows, origins, sites)
    small, offered, reason = _quantised(params, model, int8, windows, fp32.mae, origins, sites)
    return Measured(apart, fp32.windows, fp32.mae, small, offered, reason)


def _quantised(
    params: Params, model: Path, int8: Path, windows: Windows, mae_fp32: float, origins: Any, sites: Any
) -> tuple[float | None, bool, str]:
    """MAE of the INT8 model, whether it is offered, and why."""
    from cellwright.bundle.accuracy import mae
    from cellwright.bundle.export import open_session
    from cellwright.bundle.quantise import quantise

    if not params.publish.int8:
        return None, False, "not asked for (publish.int8)"
    made = quantise(model, int8)
    if made.path is None:
        return None, False, made.reason
    small = mae(open_session(made.path), windows, origins, sites).mae
    return small, *worth_offering(
        mae_fp32, small, model.stat().st_size, made.path.stat().st_size, params.publish.max_int8_loss, made.reason
    )


def worth_offering(fp32: float, int8: float, fp32_bytes: int, int8_bytes: int, most: float, how: str) -> tuple[bool, str]:
    """Whether an INT8 model is offered, and why: it must lose little and be smaller."""
    change = f"MAE {fp32:.4g} becomes {int8:.4g}"
    if int8 > fp32 * (1 + most):
        return False, f"{change}, more than {most:.1%} worse (publish.max_int8_loss)"
    if int8_bytes >= fp32_bytes:
        return False, f"{change}, but the file grows from {fp32_bytes} to {int8_bytes} bytes: too little of it are weights"
    return True, f"{how}; {change}, {fp32_bytes} bytes become {int8_bytes}"


def _contents(
    params: Params, ws: Workspace, record: Record, windows: Windows, registered: Registered | None, measured: Measured
) -> dict[str, bytes | Path]:
    from cellwright.bundle.problem import served
    from cellwright.errors import CellwrightError
    from cellwright.registry.card import model_card
    from cellwright.registry.lineage import git_commit

    champion = record.champion
    if champion.trained is None or champion.scored is None:
        raise CellwrightError(
            f"candidate {champion.key} of run {record.board.run} lacks its record or its score; run score again"
        )
    settings = champion.trained.settings
    scaler = {"kind": settings.get("scaler"), "clip": settings.get("clip"), "fitted_on": "training rows, per site and feature"}
    problem = served(windows.problem, record.schema, windows.neighbours, scaler)
    intervals = champion.scored.intervals  # calibrated on the fp32 model; the INT8 one loses too little to change them
    own: dict[str, bytes | Path] = {} if intervals is None else {media.INTERVALS: document(intervals.model_dump(mode="json"))}
    return own | {
        media.PROBLEM: document(problem.model_dump(mode="json")),
        media.CARD: model_card(champion.trained, champion.scored, record.board, record.schema).encode(),
        media.LICENCE: licence(record.schema),
        media.LINEAGE: lineage(params, champion.trained, registered, record.board.run, git_commit(ws.root)),
        media.KPIS: kpis(champion.scored, record.board, measured),
    }


def _packed(
    params: Params, ws: Workspace, record: Record, registered: Registered | None, contents: dict[str, bytes | Path]
) -> Manifest:
    """Sign the contents into ws.bundle, under a version that no other content has."""
    from cellwright.bundle.keys import signing_key
    from cellwright.registry.lineage import git_commit
    from cellwright.registry.names import model_name

    board, trained = record.board, record.champion.trained
    assert trained is not None  # checked when the contents were made
    registered_name = registered.model_name if registered else ""
    name = store.bundle_name(registered_name or model_name(board.data.dataset, board.targets, board.history, board.horizon))
    digest = content_digest(contents)[:8]
    version = (registered.semantic if registered else None) or f"0.0.0+{digest}"
    key = signing_key(ws.keys)

    def packed(version: str) -> Manifest:
        about = About(
            name=name,
            version=version,
            title=trained.title,
            family=re.sub(r"[^A-Za-z0-9_.-]", "_", public(trained.model)),
            description=board.choice.sentence,
            parameters=trained.parameters,
            created=None,
            revision=git_commit(ws.root),
        )
        return pack(ws.bundle, contents, about, key)

    manifest = packed(version)
    taken = ws.published / name / version
    return packed(f"{version}+{digest}") if taken.exists() and not store.holds(taken, manifest) else manifest


def _result(manifest: Manifest, measured: Measured, model: Path, int8: Path, path: Path, ws: Workspace) -> Published:
    now = store.pointer(ws.published, manifest.name)
    return Published(
        name=manifest.name,
        semantic=manifest.version,
        digest=manifest.digest,
        path=str(path),
        model_bytes=model.stat().st_size,
        int8_bytes=int8.stat().st_size if measured.mae_int8 is not None else None,
        int8_offered=measured.int8_offered,
        int8_reason=measured.int8_reason,
        mae_fp32=measured.mae_fp32,
        mae_int8=measured.mae_int8,
        parity=measured.parity,
        latest=now is not None and now.version == manifest.version,
    )
