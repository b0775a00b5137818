"""Stage respond."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.respond.checks import problem_with
from pipeline.respond.compose import variants
from pipeline.respond.writer import SELF_HARM, write_responses
from pipeline.store import Failures, read_rows, write_rows
from pipeline.synthesize.stage import known_images
from pipeline.workspace import Progress, Workspace
from schemas.responses import load_response_styles
from schemas.rows import RESPONSES

__all__ = ["run"]


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `responses.parquet` and `failures.parquet`: one response for each accepted pair, or a reason.

    Where params name a writer, `calls.parquet` tells which calls each response rests on.
    """
    failures = Failures("respond")
    if workspace.params.respond.writer is None:
        write_rows(out / "responses.parquet", RESPONSES, _composed(workspace, failures, progress))
    else:
        write_responses(workspace, out, failures, progress)
    failures.write(out)


def _composed(workspace: Workspace, failures: Failures, progress: Progress) -> Iterator[dict[str, str]]:
    """The rows of the pairs, their responses put together from templates."""
    styles = load_response_styles(workspace.root / workspace.params.prompts / "responses.yaml")
    images = {image.image_id: image for image in known_images(workspace)}
    scenes = {scene.id: scene for per_class in workspace.scenes.values() for scene in per_class.all()}
    pairs = list(read_rows(workspace.stage_dir("label_pairs") / "pairs.parquet"))
    # A refusal may not repeat any other; an answer may not repeat one in its own square.
    seen: set[tuple[str, str]] = set()
    progress.start("respond", len(pairs))
    for pair in pairs:
        progress.advance()
        scene = scenes.get(pair["scene"])
        if scene is None:
            why = "its query is from no scene; name an endpoint in respond.writer"
            failures.add(pair["pair_id"], pair["scene"], "no template for a response", why)
            continue
        image = images[pair["image_id"]]
        info = workspace.taxonomy.by_name(pair["harm_class"])
        must_name = [image.subject] if pair["expected"] == "refuse" else []
        scope = "" if pair["expected"] in {"refuse", "support"} else pair["square"]
        reason, text = "was not composed", ""
        for response in variants(
            scene, image, pair["query"], pair["expected"], info, styles, workspace.params.seed
        ):
            text = response.text
            reason = problem_with(
                text, pair["expected"], must_name, query=pair["query"], self_harm=info.category == SELF_HARM
            ) or ("is a copy of another row's response" if (scope, text) in seen else "")
            if not reason:
                rationale = response.rationale_dict()
                seen.add((scope, text))
                yield {
                    "pair_id": pair["pair_id"],
                    "response": text,
                    "rationale": json.dumps(rationale, ensure_ascii=False) if rationale else "",
                    "generator": f"template:{scene.id}",
                }
                break
        else:
            failures.add(pair["pair_id"], pair["scene"], f"response {reason}", text)
