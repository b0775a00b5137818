"""A scripted endpoint as the engine asks it."""

from __future__ import annotations

import json
from typing import Self

from pipeline.engine.endpoint import Connection, EndpointError, RemoteEndpoint, Terms
from pipeline.engine.scripted.script import Script, backend_id

__all__ = ["ScriptedEndpoint"]

TIMEOUT_S = 10.0


class ScriptedEndpoint(RemoteEndpoint):
    """Where a script is served. Its answers are kept under the script's hash, so it must be that script."""

    @classmethod
    def of(cls, script: Script, base_url: str, terms: Terms) -> Self:
        """The endpoint of a script that is served there; nothing is sent."""
        return cls(backend_id(script), base_url, script.api_key or "none", terms)

    def start(self) -> Connection:
        """See that the server has the same script.

        Raises:
            EndpointError: when it serves another one. Where nobody answers the first call says so.
        """
        import httpx2

        try:
            reply = httpx2.get(
                f"{self.base_url.rstrip('/')}/models",
                headers={"Authorization": f"Bearer {self.api_key}"},
                timeout=TIMEOUT_S,
            )
            owners = {model["owned_by"] for model in json.loads(reply.text)["data"]}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            owners = {self.backend_id}
        if owners != {self.backend_id}:
            raise EndpointError(
                f"{self.base_url} serves {', '.join(sorted(owners))}, and params name the script of "
                f"{self.backend_id}: start `holisafe endpoint script` anew with the file that params name"
            )
        return super().start()
