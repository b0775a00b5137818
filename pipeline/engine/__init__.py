"""Model calls: asked once, paid once, answered with a checked answer or a reason.

    with open_cache(path) as cache, LlamaServer(weights, sha256, log=log) as server:
        requests = [Request(server.backend_id, model, messages, {"temperature": 0}, Verdict) for …]
        answers = Engine(cache, server).ask_all(requests, stage="label_pairs")

See docs/architecture.md and the modules: `request` (what makes two calls the same call), `cache` (what is
kept), `endpoint` and `server` (where calls go), `sending` and `client` (how they go there), `answers` (what
they are worth), `limits` and `budget` (how fast, and how many), `batch` (many in one file), `blobs` (images).
"""

from pipeline.engine.answers import Answer, all_answered
from pipeline.engine.blobs import BlobMissingError, BlobStore
from pipeline.engine.budget import TOTAL, Budget, BudgetError
from pipeline.engine.cache import (
    BatchNote,
    Call,
    CallCache,
    CallCacheError,
    Record,
    Usage,
    open_cache,
)
from pipeline.engine.client import Engine
from pipeline.engine.endpoint import (
    Connection,
    Endpoint,
    EndpointError,
    PlannedEndpoint,
    RemoteEndpoint,
    ServerDiedError,
    Terms,
)
from pipeline.engine.request import ImageRequest, Message, Request
from pipeline.engine.sending import Stats
from pipeline.engine.server import LlamaServer

__all__ = [
    "TOTAL",
    "Answer",
    "BatchNote",
    "BlobMissingError",
    "BlobStore",
    "Budget",
    "BudgetError",
    "Call",
    "CallCache",
    "CallCacheError",
    "Connection",
    "Endpoint",
    "EndpointError",
    "Engine",
    "ImageRequest",
    "LlamaServer",
    "Message",
    "PlannedEndpoint",
    "Record",
    "RemoteEndpoint",
    "Request",
    "ServerDiedError",
    "Stats",
    "Terms",
    "Usage",
    "all_answered",
    "open_cache",
]
