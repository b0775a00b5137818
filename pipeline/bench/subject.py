"""The model under test: an endpoint that params name, or any OpenAI-compatible URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from pipeline.annotators import Voter, open_voters
from pipeline.engine import BlobStore, Engine, RemoteEndpoint, Terms, open_cache
from pipeline.workspace import Workspace
from schemas.errors import InputError

__all__ = ["open_subject"]


@contextmanager
def open_subject(
    workspace: Workspace, endpoint: str, model: str | None = None, key_env: str | None = None
) -> Iterator[Voter]:
    """Open the call cache and an endpoint; a model server starts with the first call that is not cached.

    Args:
        workspace: whose call cache is used, and whose params name endpoints; with a URL it needs no params.
        endpoint: a name in params, or a base URL such as http://127.0.0.1:8000/v1, which is taken to see
            pixels. Who answers is then called by its host and port.
        model: its name there; a URL needs one, and in params it stands already.
        key_env: the environment variable that holds the key of a URL; None: it needs none.

    Raises:
        InputError: when something is missing or not known.
        ModelMissingError: when an embedded endpoint's weights are.
    """
    if "://" not in endpoint:
        with open_voters(workspace, [endpoint]) as voters:
            voter = voters[endpoint]
            yield replace(voter, model=model) if model else voter
        return
    if not model:
        raise InputError("--model: name the model that answers at this URL")
    key = os.environ.get(key_env, "").strip() if key_env else "none"
    if not key:
        raise InputError(
            f"--key-env: the environment variable {key_env} is not set; set it to the endpoint's key"
        )
    provider = re.sub(r"[^a-z0-9._-]", "-", urlsplit(endpoint).netloc.rpartition("@")[2].lower())
    if not provider:
        raise InputError(f"--endpoint: {endpoint} is no URL; write http://HOST:PORT/v1")
    blobs = BlobStore(workspace.blobs)
    with open_cache(workspace.calls) as cache:
        served = RemoteEndpoint(provider, endpoint, key, Terms())
        engine = Engine(cache, served, blobs=blobs)
        yield Voter(model, engine, provider, model, model, served.terms, blobs=blobs)
