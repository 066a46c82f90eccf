"""The JSON documents of a bundle, parsed strictly: whatever is not expected is refused.

    index.json ─┬─ model manifest (artifactType: CNCF ModelPack) ─┬─ config
                │                                                 └─ layers: model.onnx, problem.json, card.md …
                └─ signature manifest (an OCI referrer: `subject` = the model manifest) ── layer: DSSE envelope

The envelope's payload is the OCI descriptor of the model manifest (media type, digest, size), so the signature covers, through
the digests, every byte of the bundle, its name and its version.

Two kinds: a forecasting bundle has the layers of `media.LAYERS`; a file bundle (annotation `media.FORMAT`) has files under names of
their own, which are stored, signed and handed on, and run by whoever fetches them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellwright.bundle import dsse, media
from cellwright.bundle.keys import Trust
from cellwright.errors import BundleError

MAX_DOCUMENT_BYTES = 256 * 1024  # index, manifests, config, envelope
MAX_LAYER_BYTES = 4 * 1024**3
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}(?:-[0-9A-Za-z.-]{1,64})?(?:\+[0-9A-Za-z.-]{1,64})?")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, content: bytes, what: str) -> Self:
        """Parse JSON.

        Raises:
            BundleError: it is not of this form; the message names what is wrong.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise BundleError(f"{what} is not what a bundle holds there: {where}: {first['msg']}") from None


class Descriptor(_Strict):
    """OCI content descriptor."""

    mediaType: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MAX_LAYER_BYTES)]
    artifactType: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32)

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")

    @property
    def blob(self) -> str:
        """Path inside the layout."""
        return f"blobs/sha256/{self.hex}"

    def check(self, content: bytes, what: str) -> None:
        """Raises BundleError unless `content` is what is described."""
        if len(content) != self.size:
            raise BundleError(
                f"{what}: expected {self.size} bytes, found {len(content)}; it is cut off or was changed: fetch it again"
            )
        check_digest(hashlib.sha256(content).hexdigest(), self.hex, what)


class ImageManifest(_Strict):
    """OCI image manifest."""

    schemaVersion: Literal[2]
    mediaType: Literal["application/vnd.oci.image.manifest.v1+json"]
    artifactType: str
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Field(min_length=1, max_length=16)]
    subject: Descriptor | None = None
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32)


class Index(_Strict):
    """index.json: the model's manifest and its signature's, in this order."""

    schemaVersion: Literal[2]
    mediaType: Literal["application/vnd.oci.image.index.v1+json"]
    manifests: Annotated[tuple[Descriptor, Descriptor], Field()]

    @property
    def model(self) -> Descriptor:
        return self.manifests[0]

    @property
    def signature(self) -> Descriptor:
        return self.manifests[1]


@dataclass(frozen=True)
class Manifest:
    """What a bundle is: its name, version, layers by file name, and every blob it consists of."""

    name: str
    version: str
    created: str | None
    digest: str  # sha256:… of the model manifest
    layers: dict[str, Descriptor]
    blobs: tuple[Descriptor, ...]
    signed_by: str  # id of the trusted key
    format: str = media.FORECAST  # "forecast", or of a file bundle: one of media.FILE_FORMATS

    @property
    def forecasts(self) -> bool:
        """Whether it is a forecasting bundle, which an edge can run; a file bundle is for download only."""
        return self.format == media.FORECAST

    @property
    def bytes(self) -> int:
        """Of all its blobs, each counted once."""
        return sum({d.digest: d.size for d in self.blobs}.values())


def parse_index(content: bytes) -> Index:
    """Parse index.json.

    Raises:
        BundleError: it is not the index of a signed model.
    """
    index = Index.parse(content, "index.json")
    for found, kind in ((index.model, media.MODEL_ARTIFACT), (index.signature, media.DSSE)):
        if (found.mediaType, found.artifactType) != (media.OCI_MANIFEST, kind):
            raise BundleError(
                f"index.json: expected a manifest of artifactType {kind}, found {found.mediaType} of {found.artifactType}; "
                "a bundle holds one model and one signature"
            )
        if found.size > MAX_DOCUMENT_BYTES:
            raise BundleError(f"index.json announces a manifest of {found.size} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    return index


def parse_model(content: bytes, described: Descriptor) -> ImageManifest:
    """Parse the model's manifest and check that each layer is one a bundle has.

    Raises:
        BundleError: another digest, an unknown media type or file, or one that is missing.
    """
    described.check(content, "model manifest")
    manifest = ImageManifest.parse(content, "model manifest")
    if manifest.artifactType != media.MODEL_ARTIFACT or manifest.config.mediaType != media.MODEL_CONFIG:
        raise BundleError(
            f"model manifest: unknown media type {manifest.artifactType} / {manifest.config.mediaType}, "
            f"expected {media.MODEL_ARTIFACT} / {media.MODEL_CONFIG}"
        )
    _check_layers(manifest.layers, manifest.annotations.get(media.FORMAT))
    check_name(manifest.annotations.get(media.TITLE, ""), manifest.annotations.get(media.VERSION, ""))
    return manifest


def parse_signature(content: bytes, described: Descriptor, subject: Descriptor) -> ImageManifest:
    """Parse the signature's manifest, which must refer to the model's.

    Raises:
        BundleError: another digest, another subject, or not a DSSE envelope.
    """
    described.check(content, "signature manifest")
    manifest = ImageManifest.parse(content, "signature manifest")
    refers = manifest.subject is not None and hmac.compare_digest(manifest.subject.digest, subject.digest)
    kinds = (manifest.artifactType, manifest.config.mediaType, *(layer.mediaType for layer in manifest.layers))
    if kinds != (media.DSSE, media.OCI_EMPTY, media.DSSE):
        raise BundleError(f"signature manifest: unknown media types {', '.join(kinds)}; expected one {media.DSSE}")
    if not refers:
        raise BundleError(
            "the signature manifest refers to another model manifest than index.json names: the bundle was put together wrongly"
        )
    return manifest


def check_signature(envelope: bytes, model: Descriptor, trust: Trust) -> str:
    """Id of the trusted key that signed the model's manifest.

    Raises:
        BundleError: not signed by a trusted key, or another manifest was signed.
    """
    opened = dsse.unseal(envelope, media.OCI_DESCRIPTOR, trust)
    signed = Descriptor.parse(opened.payload, "signed payload")
    same = hmac.compare_digest(signed.digest, model.digest) and (signed.size, signed.mediaType) == (model.size, model.mediaType)
    if not same:
        raise BundleError(
            f"signed was manifest {signed.digest[:19]}…, the bundle's is {model.digest[:19]}…: it was changed after signing"
        )
    return opened.signed_by


def assemble(index: Index, model: ImageManifest, signature: ImageManifest, signed_by: str) -> Manifest:
    """One view of a bundle whose documents have been checked."""
    return Manifest(
        name=model.annotations[media.TITLE],
        version=model.annotations[media.VERSION],
        created=model.annotations.get(media.CREATED),
        digest=index.model.digest,
        layers={layer.annotations[media.FILEPATH]: layer for layer in model.layers},
        blobs=(index.model, model.config, *model.layers, index.signature, signature.config, *signature.layers),
        signed_by=signed_by,
        format=model.annotations.get(media.FORMAT, media.FORECAST),
    )


def check_name(name: str, version: str) -> None:
    """Raises BundleError unless both can be parts of a path and of an address."""
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"'{name}' is not a bundle's name: expected letters, digits and _ . + -, at most 200, not starting with a dot"
        )
    if not _VERSION.fullmatch(version):
        raise BundleError(f"'{version}' is not a version: expected one like 1.2.3 or 0.0.0+1a2b3c4d")


def check_digest(found: str, expected: str, what: str) -> None:
    """Raises BundleError unless the two SHA-256 (hexadecimal) are equal; compared in constant time."""
    if not hmac.compare_digest(found, expected):
        raise BundleError(
            f"{what}: expected SHA-256 {expected[:12]}…, found {found[:12]}…; it was damaged or changed: fetch it again"
        )


def canonical(content: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal content, equal bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check_layers(layers: tuple[Descriptor, ...], file_format: str | None) -> None:
    names = [layer.annotations.get(media.FILEPATH, "") for layer in layers]
    if file_format is not None:
        _check_files(layers, names, file_format)
        return
    for name, layer in zip(names, layers, strict=True):
        if media.LAYERS.get(name) != layer.mediaType:
            raise BundleError(
                f"model manifest: '{name}' of media type {layer.mediaType} is not a layer a bundle has; it is refused"
            )
    missing = set(media.LAYERS) - media.OPTIONAL - set(names)
    if missing or len(set(names)) != len(names):
        raise BundleError(f"model manifest: {'missing ' + ', '.join(sorted(missing)) if missing else 'a layer is named twice'}")


def _check_files(layers: tuple[Descriptor, ...], names: list[str], file_format: str) -> None:
    """The layers of a file bundle: names that can be a file's, each once, of ModelPack's media types, one at least with weights."""
    if file_format not in media.FILE_FORMATS:
        raise BundleError(
            f"model manifest: unknown format '{file_format[:40]}', expected one of {', '.join(sorted(media.FILE_FORMATS))}"
        )
    for name, layer in zip(names, layers, strict=True):
        if not _NAME.fullmatch(name) or layer.mediaType not in media.FILE_KINDS:
            raise BundleError(
                f"model manifest: '{name[:80]}' of media type {layer.mediaType} cannot be a file of a bundle; it is refused"
            )
    if len(set(names)) != len(names) or all(layer.mediaType != media.WEIGHT for layer in layers):
        raise BundleError("model manifest: a file is named twice, or none holds weights")
