"""The files that make an image and start it name what there is."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipeline.template import PARTS
from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
# Of the Compose specification, what is used here.
SERVICE = {
    "build", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "ports", "restart",
    "stop_grace_period", "volumes",
}  # fmt: skip


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


def test_services_name_each_other_volumes_and_files_as_they_are() -> None:
    said = compose()
    services = said["services"]
    assert set(said) <= {"name", "services", "volumes"} | {key for key in said if key.startswith("x-")}
    for name, service in services.items():
        assert set(service) <= SERVICE, name
        for other, when in service.get("depends_on", {}).items():
            assert when == {"condition": "service_healthy"}
            assert "healthcheck" in services[other], other
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            assert mode in ([], ["ro"])
            assert (DEPLOY / source).is_file() if source.startswith("./") else source in said["volumes"]
        for value in service.get("environment", {}).values():
            if "://" in value:
                assert re.search(r"[/@](postgres|prefect|127\.0\.0\.1):(5432|4200)/", value), value
        # The database is for the services alone, the page for this machine alone.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if "build" in service:
            built = service["build"]
            assert (DEPLOY / built["context"] / built["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_no_password_is_written_down() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert text.count("${POSTGRES_PASSWORD") == 3
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert {"deploy/.env", "deploy/keys.env"} <= set(ignored)


def test_the_image_is_built_from_what_the_context_lets_through() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((REPOSITORY / name).exists() for name in through)
    copied = re.findall(r"^COPY (?!--from|\. )(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {name for names in copied for name in names.split()} | {
        "setup.py", "pyproject.toml", "README.md", "LICENSE", "schemas", "pipeline", "flows", *PARTS,
    }  # fmt: skip
    assert not [
        name for name in wanted if not any(name == there or name.startswith(f"{there}/") for there in through)
    ]
