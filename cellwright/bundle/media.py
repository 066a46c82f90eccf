"""Media types of a bundle: the OCI image specification's and those of the CNCF ModelPack model-spec, version 1.

Names after opencontainers/image-spec v1.1 and modelpack/model-spec `specs-go/v1/mediatype.go` and `annotations.go`.
"""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"

MODEL_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"

DSSE = "application/vnd.dsse.envelope.v1+json"

FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"
CREATED = "org.opencontainers.image.created"
REVISION = "org.opencontainers.image.revision"
REF_NAME = "org.opencontainers.image.ref.name"
FORMAT = "io.github.cellwright.format"  # of a file bundle: what its weights are; a forecasting bundle has no such annotation

FORECAST = "forecast"  # the format of a bundle without the annotation: all the layers below, and nothing else
FILE_FORMATS = frozenset({"onnx", "safetensors", "opaque"})
FILE_KINDS = frozenset({WEIGHT, WEIGHT_CONFIG, DOC})  # media types of a file bundle's layers; one at least is WEIGHT

MODEL, MODEL_INT8, PROBLEM, INTERVALS = "model.onnx", "model.int8.onnx", "problem.json", "intervals.json"
CARD, LICENCE, LINEAGE, KPIS = "card.md", "DATA-LICENCE.md", "lineage.json", "kpis.json"

LAYERS = {
    MODEL: WEIGHT,
    MODEL_INT8: WEIGHT,
    PROBLEM: WEIGHT_CONFIG,
    INTERVALS: WEIGHT_CONFIG,
    CARD: DOC,
    LICENCE: DOC,
    LINEAGE: DOC,
    KPIS: DOC,
}
OPTIONAL = frozenset({MODEL_INT8, INTERVALS})
