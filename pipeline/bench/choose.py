"""Judges by the names that people give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pipeline.anyset import AnySet
from pipeline.bench.judging import Judge
from pipeline.bench.official import OfficialString
from pipeline.bench.refusal import RefusalJudge
from pipeline.workspace import Workspace
from schemas.errors import InputError

__all__ = ["ASKED", "JUDGES", "judges_by_name"]

ASKED = ("llm", "verdict")
"""Judges that ask an endpoint, called by its name."""

JUDGES: dict[str, Callable[[], Judge]] = {"official-string": OfficialString, "refusal": RefusalJudge}
"""What makes each judge that asks nobody."""


@contextmanager
def judges_by_name(names: Sequence[str], workspace: Workspace, data: AnySet | None) -> Iterator[list[Judge]]:
    """The judges of these names, each once, in their order.

    Args:
        names: those of `JUDGES`, and `llm:ENDPOINT` or `verdict:ENDPOINT` for judges that ask an endpoint.
        workspace: whose params name endpoints, and whose prompts they are told.
        data: the dataset that was asked; judges that ask an endpoint need it.

    Raises:
        InputError: without a name, for one that no judge has, and for an endpoint that is not there.
        ModelMissingError: when an embedded endpoint's weights are missing.
    """
    known = ", ".join([*JUDGES, *(f"{kind}:ENDPOINT" for kind in ASKED)])
    wanted = list(dict.fromkeys(name.strip() for name in names))
    if not wanted or "" in wanted:
        raise InputError(f"--judge: a name is empty; known judges: {known}")
    asked = {name: name.partition(":") for name in wanted if name not in JUDGES}
    for name, (kind, _, endpoint) in asked.items():
        if kind not in ASKED or not endpoint:
            raise InputError(f"--judge: there is no judge {name!r}; known judges: {known}")
        if data is None:
            raise InputError(f"--data: {name} looks at images and queries; name the dataset that was asked")
    with ExitStack() as running:
        made: dict[str, Judge] = {}
        if asked:
            from pipeline.annotators import open_voters
            from pipeline.bench.asked import LlmJudge, VerdictJudge, load_judge_prompt

            judges = {"llm": LlmJudge, "verdict": VerdictJudge}
            endpoints = list(dict.fromkeys(endpoint for _, _, endpoint in asked.values()))
            voters = running.enter_context(open_voters(workspace, endpoints))
            prompts = workspace.root / workspace.params.prompts / "bench"
            for name, (kind, _, endpoint) in asked.items():
                assert data is not None  # noqa: S101 - seen to above
                prompt = load_judge_prompt(prompts / f"{kind}.yaml")
                made[name] = judges[kind](voters[endpoint], prompt, data)
        yield [made[name] if name in made else JUDGES[name]() for name in wanted]
