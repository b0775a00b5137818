"""The params model: everything a build can be told, in one explicit file, `params.yaml`."""

from schemas.params._base import PerClass
from schemas.params.build import Assemble, Curate, Params, Thresholds, load_params
from schemas.params.collect import (
    BlockList,
    ClassFoldersSource,
    Fetch,
    FolderSource,
    HubSource,
    Img2DatasetSource,
    Intended,
    MetadataField,
    Source,
    UrlsSource,
    WebDatasetSource,
    source_paths,
)
from schemas.params.encoder import CheckpointEncoder, EmbeddedEncoder, Encoder
from schemas.params.endpoints import (
    ASKED,
    HARM_PROMPT,
    VOTED,
    Annotators,
    Budget,
    EmbeddedEndpoint,
    Endpoint,
    Prices,
    RemoteEndpoint,
    ScriptedEndpoint,
    Trained,
)
from schemas.params.execution import Execution
from schemas.params.generate import DiffusionPictures, ImagesApiPictures, Pictures, Placeholders
from schemas.params.respond import Respond

__all__ = [
    "ASKED",
    "HARM_PROMPT",
    "VOTED",
    "Annotators",
    "Assemble",
    "BlockList",
    "Budget",
    "CheckpointEncoder",
    "ClassFoldersSource",
    "Curate",
    "DiffusionPictures",
    "EmbeddedEncoder",
    "EmbeddedEndpoint",
    "Encoder",
    "Endpoint",
    "Execution",
    "Fetch",
    "FolderSource",
    "HubSource",
    "ImagesApiPictures",
    "Img2DatasetSource",
    "Intended",
    "MetadataField",
    "Params",
    "PerClass",
    "Pictures",
    "Placeholders",
    "Prices",
    "RemoteEndpoint",
    "Respond",
    "ScriptedEndpoint",
    "Source",
    "Thresholds",
    "Trained",
    "UrlsSource",
    "WebDatasetSource",
    "load_params",
    "source_paths",
]
