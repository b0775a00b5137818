"""What prompts for pictures an endpoint writes: how many can be used, and how far they keep to the order.

    python -m benchmarks.image_prompts --endpoint local [--workspace .] [--per-side 3] [--out FILE]

For every class and side that the taxonomy lets be generated it asks for prompts as stage generate does, and
prints figures. FILE gets every prompt beside its concept, to be read: whether one is good no rule can say.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.surroundings import environment
from pipeline.annotators.panel import open_endpoint
from pipeline.audit.variety import distinct
from pipeline.engine import Engine, open_cache
from pipeline.generate.prompts import (
    Picture,
    Wanted,
    WrittenPrompt,
    admitted,
    load_image_prompt,
    wanted_pictures,
    writer_request,
)
from pipeline.store import Failures, write_json
from pipeline.workspace import Workspace
from schemas.params import ImagesApiPictures, PerClass

PACKAGES = ("openai", "xllamacpp")


def orders(workspace: Workspace, per_side: int) -> list[Wanted]:
    """The pictures to have prompts written for."""
    file = load_image_prompt(workspace.root / workspace.params.prompts / "generate" / "image_prompt.yaml")
    found = []
    for safe in (True, False):
        allowed = ("allowed", "drawn_only", "safe_only") if safe else ("allowed",)
        classes = [i for i in workspace.taxonomy.classes() if i.spec.generation.images in allowed]
        maker = ImagesApiPictures(
            kind="images_api",
            name="measured",
            endpoint="none",
            per_class=PerClass(safe=per_side if safe else 0, unsafe=0 if safe else per_side),
            size=(512, 512),
            licence="CC0-1.0",
            redistributable="no",
        )
        found += wanted_pictures([maker], classes, file, workspace.params.seed)
    return found


def names(said: WrittenPrompt, concept: str) -> bool:
    """Whether a prompt says what it was asked to show, in the same words."""
    words = {w.removesuffix("s") for w in re.findall(r"\w+", said.prompt.lower())}
    return {w.removesuffix("s") for w in re.findall(r"\w+", concept.lower())} <= words


def main() -> None:
    """Ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--per-side", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    workspace = Workspace(args.workspace)
    said = workspace.params.endpoints[args.endpoint]
    file = load_image_prompt(workspace.root / workspace.params.prompts / "generate" / "image_prompt.yaml")
    wanted = orders(workspace, args.per_side)
    with tempfile.TemporaryDirectory() as folder, open_cache(Path(folder) / "calls.sqlite") as cache:
        endpoint = open_endpoint(workspace, args.endpoint)
        try:
            voter = _voter(args.endpoint, said, Engine(cache, endpoint), endpoint)
            calls = [writer_request(voter, file, w) for w in wanted]
            began = time.monotonic()
            answers = voter.engine.ask_all(calls, stage="generate", warm=calls[0].messages[:-1])
            took = time.monotonic() - began
        finally:
            endpoint.close()
    pictures = [
        Picture(w, a.value, {}, a.key)
        for w, a in zip(wanted, answers, strict=True)
        if a.status == "ok" and isinstance(a.value, WrittenPrompt)
    ]
    failures = Failures("generate")
    used = admitted(pictures, failures, ["measured"])
    figures: dict[str, Any] = {
        "environment": environment(PACKAGES),
        "model": said.model,
        "prompt_version": file.version,
        "asked": len(wanted),
        "written": len(pictures),
        "asked_again": sum(a.attempts > 1 for a in answers),
        "not_written": sorted({f"{a.status}: {a.error}"[:120] for a in answers if a.status != "ok"}),
        "refused_or_alike": [
            f"{row['item_id'][:12]} {row['reason']}: {row['detail']}" for row in failures.rows
        ],
        "used": len(used),
        "name_their_concept": sum(names(p.said, p.wanted.triple.concept) for p in used),
        "name_their_style": sum(p.wanted.triple.style.lower() in p.said.prompt.lower() for p in used),
        "name_their_setting": sum(p.wanted.triple.setting.lower() in p.said.prompt.lower() for p in used),
        "words": statistics.median(len(p.said.prompt.split()) for p in used) if used else 0,
        "distinct_2": distinct([p.said.prompt for p in used], 2),
        "seconds_each": round(took / len(wanted), 2),
    }
    rows = [
        {
            "class": w.info.name,
            "side": "safe" if w.safe else "unsafe",
            "concept": w.triple.concept,
            "status": a.status,
            "answer": a.value.model_dump() if a.value is not None else a.raw,
        }
        for w, a in zip(wanted, answers, strict=True)
    ]
    if args.out:
        write_json(args.out, {"figures": figures, "prompts": rows})
    for name, value in figures.items():
        print(f"{name}: {value}")


def _voter(name: str, said: Any, engine: Engine, endpoint: Any) -> Any:
    from pipeline.annotators import Voter

    return Voter(
        name,
        engine,
        endpoint.backend_id,
        said.model,
        said.family,
        endpoint.terms,
        said.parameters,
        local=said.kind == "embedded",
    )


if __name__ == "__main__":
    main()
