"""Model calls: asked once, paid once, answered with a checked answer or a reason.

    with CallCache(path) as cache, LlamaServer(weights, sha256, log=log) as server:
        requests = [Request(server.backend_id, model, messages, {"temperature": 0}, Verdict) for …]
        answers = Engine(cache, server).ask_all(requests, stage="label_pairs")

See docs/architecture.md and the modules: `request` (what makes two calls the same call), `cache` (what is
kept), `endpoint` and `server` (where calls go), `client` (how they go there).
"""

from pipeline.engine.cache import CallCache, CallCacheError, Record
from pipeline.engine.client import Answer, Engine, Stats
from pipeline.engine.endpoint import Connection, Endpoint, EndpointError, RemoteEndpoint, ServerDiedError
from pipeline.engine.request import Message, Request
from pipeline.engine.server import LlamaServer

__all__ = [
    "Answer",
    "CallCache",
    "CallCacheError",
    "Connection",
    "Endpoint",
    "EndpointError",
    "Engine",
    "LlamaServer",
    "Message",
    "Record",
    "RemoteEndpoint",
    "Request",
    "ServerDiedError",
    "Stats",
]
