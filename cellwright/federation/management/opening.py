"""The FMLMS of a project: the database that its parameters name, sealed with the project's own key."""

from __future__ import annotations

from cellwright.federation.data.at_rest import storage_of
from cellwright.federation.data.keyring import FileKey, KeySource
from cellwright.federation.data.vault import Vault
from cellwright.federation.management.permissions import SecurityRules
from cellwright.federation.management.service import Fmlms
from cellwright.params import Params
from cellwright.workspace import Workspace


def open_fmlms(
    ws: Workspace,
    params: Params,
    *,
    database: str | None = None,
    rules: SecurityRules | None = None,
    silent_s: float | None = None,
    key: KeySource | None = None,
) -> Fmlms:
    """Open the FMLMS of the data set that the parameters choose; models and metadata lie encrypted in it (M.3387 10.2).

    `database`: another URL than federation.database; `key`: another than federation names (storage_key, key_command), and that is
    <state>/federation/storage.key where it names none. What that key sealed before another was named still opens.

    Raises:
        WrongUse, FederationError: the database or the key cannot be used.
    """
    f = params.federation
    url = database or f.database or ws.fmlms_uri(params.dataset)
    own, named = FileKey(ws.federation / "storage.key"), storage_of(f.storage_key, f.key_command, ws.root)
    source = key or (own if named is None else named.key())
    former = [own] if source is not own and own.path.exists() else []
    return Fmlms(url, rules=rules, silent_s=silent_s, vault=Vault(source, former))
