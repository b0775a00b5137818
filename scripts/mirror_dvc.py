"""Write dvc.yaml from the table of stages in pipeline/stages.py.

Usage: python scripts/mirror_dvc.py
"""

from __future__ import annotations

from pathlib import Path

from pipeline.stages import STAGES, Stage
from schemas.params import ASKED, VOTED
from schemas.reviews import REVIEWS

HEAD = """\
# Mirrors pipeline/stages.py; `python scripts/mirror_dvc.py` writes it and a test compares the two.
# `holisafe run` decides by its own stage key whether there is anything to do.
stages:
"""
METRICS = """\
metrics:
  - data/audit/metrics.json
plots:
  - data/audit/plots/cells.csv:
      template: bar_horizontal
      x: pairs
      y: cell
      title: Pairs by category and type
  - data/audit/plots/agreement.csv:
      template: bar_horizontal
      x: raw_agreement
      y: question
      title: Raw agreement by question
"""


# What params.yaml names as it stands in the repository; it names no block lists, checkpoints or heads.
NAMES = {
    "{taxonomy}": ["schemas/taxonomy.yaml"],
    "{sources}": ["data/seed"],
    "{block_lists}": [],
    "{checkpoints}": [],
    "{safety_head}": [],
    # Both prompts of a question: DVC asks whether there may be something to do, the stage key decides.
    **{f"{{{q}}}": [f"prompts/annotate/{q}.yaml", f"prompts/annotate/{q}_clauses.yaml"] for q in VOTED},
    "{harm}": ["prompts/annotate/harm.yaml"],
    # DVC refuses to depend on what is not there.
    str(REVIEWS): [str(REVIEWS)] if REVIEWS.exists() else [],
}


def stage_yaml(stage: Stage) -> str:
    """One stage as YAML."""
    files = [name for f in stage.files for name in NAMES.get(f, [f.replace("{prompts}", "prompts")])]
    deps = files + [f"data/{'dataset' if name == 'assemble' else name}" for name in stage.inputs]
    out = "dataset" if stage.name == "assemble" else stage.name
    lines = [f"  {stage.name}:", f"    cmd: holisafe run {stage.name}", "    deps:"]
    lines += [f"      - {dep}" for dep in deps]
    params = [*stage.params, *(f"annotators.{q}" for q in stage.questions if q in ASKED)]
    params += ["endpoints"] if stage.questions else []
    lines += ["    params:"] + [f"      - {param}" for param in params]
    lines += ["    outs:", f"      - data/{out}"]
    return "\n".join(lines)


def dvc_yaml() -> str:
    """The whole file."""
    return HEAD + "\n".join(stage_yaml(stage) for stage in STAGES.values()) + "\n" + METRICS


if __name__ == "__main__":
    Path("dvc.yaml").write_text(dvc_yaml())
