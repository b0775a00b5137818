"""Model weights, named by the SHA-256 of their bytes: fetched as data, checked, then located.

Fetched bytes are never imported or executed, and nothing loads them before their hash was checked.
"""

from pipeline.models.registry import Hub, Model, ModelFile, Registry, Source, Wheels, load_registry
from pipeline.models.store import (
    HashMismatchError,
    ModelError,
    ModelMissingError,
    ModelStatus,
    Progress,
    locate,
    model_sha256,
    pull,
    status,
    store_root,
    verify,
)

__all__ = [
    "HashMismatchError",
    "Hub",
    "Model",
    "ModelError",
    "ModelFile",
    "ModelMissingError",
    "ModelStatus",
    "Progress",
    "Registry",
    "Source",
    "Wheels",
    "load_registry",
    "locate",
    "model_sha256",
    "pull",
    "status",
    "store_root",
    "verify",
]
