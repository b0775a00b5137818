"""An S3 server with an empty bucket, which can be told to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

__all__ = ["KEYS", "Bucket", "bucket_of"]

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""The variables that let a process in."""

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Ask less often.</Message></Error>"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Quiet(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what is answered."""


class Bucket:
    """A bucket on a server of its own in this process.

    Attributes:
        name: the bucket's.
        url: the server's.
        client: boto3's, of that server.
        requests: how many the server got.
        refuses: so many of the next requests it answers with 503, as a server that has too much to do.
        breaks_off: so many of the next that get something it breaks off in the middle.
        late_s: it waits so long before each answer.
    """

    def __init__(self, name: str) -> None:
        """Start the server, and make the bucket."""
        self.requests = 0
        self.well()
        moto: Application = DomainDispatcherApplication(create_backend_app)
        self._moto = moto
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=_Quiet)
        self.name, self.url = name, f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        session = boto3.Session("testing", "testing", region_name="us-east-1")
        self.client: Any = session.client("s3", endpoint_url=self.url)
        self.client.create_bucket(Bucket=name)

    def files(self) -> dict[str, bytes]:
        """All that it holds, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {
            found["Key"]: self.client.get_object(Bucket=self.name, Key=found["Key"])["Body"].read()
            for page in pages
            for found in page.get("Contents", [])
        }

    def well(self) -> None:
        """Answer as it should again."""
        self.refuses, self.breaks_off, self.late_s = 0, 0, 0.0

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        time.sleep(self.late_s)
        method = environ["REQUEST_METHOD"]
        if self.refuses:
            self.refuses -= 1
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [] if method == "HEAD" else [BUSY]
        given = self._moto(environ, start)
        if self.breaks_off and method == "GET":
            self.breaks_off -= 1
            whole = b"".join(given)
            return [whole[: len(whole) // 2]]  # of a length that has been promised
        return given


@contextmanager
def bucket_of(name: str) -> Iterator[Bucket]:
    """A bucket that ends with the block."""
    bucket = Bucket(name)
    try:
        yield bucket
    finally:
        bucket.stop()
