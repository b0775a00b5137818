"""A built dataset on the Hugging Face Hub: gated, private by default, only what may be given away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.built import check_columns, row_count, shard_rows, shards
from pipeline.workspace import Progress
from schemas.errors import InputError

__all__ = ["HubPlan", "gated_card", "plan_upload", "upload"]

CARD = "README.md"
GATING: Literal["manual"] = "manual"
_LEFT_OUT = "meta/images_left_out.jsonl"
_KNOWN = {CARD, "croissant.json", "holisafe_bench.json", "meta/failures.parquet", _LEFT_OUT}
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_MEND = "set `assemble: {images: redistributable}` in params.yaml and run `holisafe build`"
_GATE: dict[str, Any] = {
    "gated": True,
    "extra_gated_heading": "Ask for access to this safety dataset",
    "extra_gated_prompt": (
        "This dataset holds unsafe images and questions. It is for making vision-language models safer and "
        "for measuring how safe they are. You agree not to use it to make a model less safe, not to try to "
        "find out who is in a picture, not to train on its test split, and to keep to each image's licence."
    ),
    "extra_gated_fields": {
        "Name": "text",
        "Affiliation": "text",
        "Country": "country",
        "What I want to use it for": "text",
        "I agree to these terms": "checkbox",
    },
    "extra_gated_button_content": "Agree and ask for access",
}


@dataclass(frozen=True, slots=True)
class HubPlan:
    """What an upload would do.

    Attributes:
        repo: owner and name.
        private: whether only its owners see it.
        gating: how requests for access are answered.
        files: paths and sizes in bytes, the card as it would be uploaded.
        rows: rows of the dataset.
        left_out: rows that go without their image.
        card: the text of the card.
    """

    repo: str
    private: bool
    gating: str
    files: dict[str, int]
    rows: int
    left_out: int
    card: str


def plan_upload(
    dataset: Path, repo: str, *, public: bool, progress: Progress, proof: Path | None = None
) -> HubPlan:
    """Check that everything in the folder may go, and say what would. Nothing is sent.

    Args:
        dataset: the built dataset.
        repo: owner and name.
        public: whether everybody is to see it.
        progress: counts rows.
        proof: a folder that `holisafe prove` wrote of this dataset; its table goes into the card.

    Raises:
        InputError: when an image may not be given away, a file is none of the dataset's, or the proof is of
            other rows.
    """
    if not _REPO.fullmatch(repo):
        raise InputError(f"--repo: {repo!r} is not OWNER/NAME")
    found = shards(dataset)
    check_columns(found, ["id", "type", "image.path", "redistributable"])
    progress.start("rows", row_count(found))
    rows = left_out = 0
    free: set[str] = set()
    named: list[tuple[object, str]] = []
    for shard in found:
        for row in shard_rows(shard, ["id", "type", "image.path", "redistributable"]):
            rows += 1
            named.append((row["id"], row["type"]))
            progress.advance()
            if row["image"] is None:
                left_out += 1
            elif row["redistributable"] != "yes":
                raise InputError(
                    f"{shard.path}: row {row['id']}: redistributable: {row['redistributable']}, so its image "
                    f"may not be uploaded; {_MEND}"
                )
            else:
                free.add(f"images/{row['image']['path']}")
    known = _KNOWN | {shard.path.relative_to(dataset).as_posix() for shard in found}
    files: dict[str, int] = {}
    for path in _files(dataset):
        name = path.relative_to(dataset).as_posix()
        if name.startswith("images/") and name not in free:
            raise InputError(f"{path}: no row says that this image may be given away; {_MEND}")
        if name not in known and name not in free:
            raise InputError(f"{path}: no build writes this file; move it out of the dataset")
        files[name] = path.stat().st_size
    card = gated_card(dataset / CARD)
    if proof is not None:
        card = f"{card.rstrip()}\n\n{_table(proof, named)}"
    return HubPlan(
        repo, not public, GATING, files | {CARD: len(card.encode())}, rows=rows, left_out=left_out, card=card
    )


def upload(dataset: Path, plan: HubPlan, token: str) -> str:
    """Do what `plan` says, and return the repository's address. After a failure, the same again goes on.

    Raises:
        OSError: what the Hub or the network said.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    made = api.create_repo(plan.repo, repo_type="dataset", private=True, exist_ok=True)
    # The gate is a setting of the repository: the card only words it. It is shut before anything is there.
    api.update_repo_settings(
        plan.repo, repo_type="dataset", gated=GATING, private=True if plan.private else None
    )
    api.upload_file(
        path_or_fileobj=plan.card.encode(),
        path_in_repo=CARD,
        repo_id=plan.repo,
        repo_type="dataset",
        commit_message="Card",
    )
    api.upload_folder(
        repo_id=plan.repo,
        repo_type="dataset",
        folder_path=dataset,
        ignore_patterns=[CARD],
        # Rows and images of a former build that are no longer in this one.
        delete_patterns=["data/*", "images/*", "meta/*"],
        commit_message="Dataset",
    )
    if not plan.private:
        api.update_repo_settings(plan.repo, repo_type="dataset", private=False)
    return str(made)


def _table(proof: Path, rows: Iterable[tuple[object, str]]) -> str:
    from pipeline.prove import markdown, read_proof, rows_hash

    found = read_proof(proof)
    if found.dataset != rows_hash(rows):
        raise InputError(f"{proof}: a proof of other rows than these; run `holisafe prove` on this dataset")
    return markdown(found)


def gated_card(path: Path) -> str:
    """The card with what the Hub asks people for; what its front matter says already stays.

    Raises:
        InputError: when there is no card with front matter.
    """
    import yaml

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `holisafe run assemble`") from None
    parts = re.fullmatch(r"---\n(.*?\n)---\n(.*)", text, re.DOTALL)
    try:
        said = yaml.safe_load(parts[1]) if parts else None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: front matter: not valid YAML: {' '.join(str(error).split())}") from error
    if parts is None or not isinstance(said, dict):
        raise InputError(f"{path}: no front matter between two lines of ---; run `holisafe run assemble`")
    more = {key: value for key, value in _GATE.items() if key not in said}
    added = yaml.safe_dump(more, sort_keys=False, allow_unicode=True, width=100) if more else ""
    return f"---\n{parts[1]}{added}---\n{parts[2]}"


def _files(dataset: Path) -> Iterator[Path]:
    for path in sorted(dataset.rglob("*")):
        if path.is_symlink():
            raise InputError(
                f"{path}: a link, and what it points to would be uploaded; put a file in its place"
            )
        if path.is_file():
            yield path
