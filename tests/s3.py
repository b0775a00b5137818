"""An S3 server with an empty bucket, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

__all__ = ["KEYS", "bucket_of"]

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""The variables that let a process in."""


@contextmanager
def bucket_of(name: str) -> Iterator[tuple[Any, str]]:
    """A client of the server, and its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        session = boto3.Session("testing", "testing", region_name="us-east-1")
        client = session.client("s3", endpoint_url=url)
        client.create_bucket(Bucket=name)
        yield client, url
    finally:
        server.stop()
