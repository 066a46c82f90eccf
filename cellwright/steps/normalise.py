"""normalise: turn the raw files of the data set into its panel."""

from __future__ import annotations

from cellwright.catalogue import load_catalogue
from cellwright.data.normalise import build
from cellwright.data.sources import raw_files
from cellwright.files import whole_folder, write_text
from cellwright.params import Params
from cellwright.results import Normalised
from cellwright.workspace import Workspace


def normalise(params: Params, ws: Workspace) -> Normalised:
    """Write the panel and `report.json`, what was repaired, beside its days.

    Raises:
        SourceError: nothing was ingested.
        FormatError: the files are not what the catalogue says.
        WorkspaceError: the panel cannot be written; an older one stays as it was.
    """
    entry = load_catalogue(ws.catalogue).entry(params.dataset)
    built = build(entry, raw_files(ws.raw(entry.name)), params.normalise)
    with whole_folder(ws.panel(entry.name)) as folder:
        built.panel.write_days(folder)
        write_text(folder / "report.json", built.report.model_dump_json(indent=2) + "\n")
    return built.report
