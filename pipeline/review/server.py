"""The server of the page: on this machine alone, and for as long as the command runs."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import uvicorn

from pipeline.review.app import make_app
from pipeline.review.desk import Desk
from pipeline.review.guard import Sessions
from schemas.errors import InputError

__all__ = ["Serving", "listen"]

HOST = "127.0.0.1"


@dataclass
class Serving:
    """A server that holds its port and waits to be run.

    Attributes:
        url: opens the page, again and again.
        once: opens it once.
        server: uvicorn's.
        listening: the socket.
    """

    url: str
    once: str
    server: uvicorn.Server
    listening: socket.socket

    def run(self) -> None:
        """Serve until Ctrl-C or SIGTERM, which come on as they would have without a server."""
        with self.listening:
            self.server.run(sockets=[self.listening])


def listen(desk: Desk, *, port: int = 0, reviewer: str = "") -> Serving:
    """Take a port of this machine for the page of a dataset.

    Args:
        desk: the dataset, its queues and the store.
        port: 0 takes a free one.
        reviewer: who uses a browser unless it is told otherwise.

    Raises:
        InputError: when the port cannot be had.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise InputError(
            f"--port {port}: cannot be had on {HOST} ({error.strerror}); name another, or 0 for a free one"
        ) from error
    port = listening.getsockname()[1]
    sessions = Sessions(reviewer)
    config = uvicorn.Config(
        make_app(desk, sessions, port), log_level="warning", access_log=False, lifespan="off", ws="none",
        http="h11", loop="asyncio", server_header=False, proxy_headers=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    where = f"http://{HOST}:{port}/enter?token="
    return Serving(where + sessions.token, where + sessions.ticket(), uvicorn.Server(config), listening)
