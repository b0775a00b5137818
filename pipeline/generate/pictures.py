"""Pictures from diffusion models and from endpoints, with the prompts that they are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.collect.screen import BlockedError, Screen
from pipeline.curate.normalise import RejectedImageError, opened
from pipeline.encoders._common import flattened
from pipeline.generate.encoding import encode, image_seed
from pipeline.generate.policy import ImagePrompt, check_makers, refusal
from pipeline.generate.prompts import (
    ImagePromptFile,
    Picture,
    Wanted,
    WrittenPrompt,
    admitted,
    load_image_prompt,
    wanted_pictures,
    writer_request,
)
from pipeline.parallel import WorkerDied, in_processes
from pipeline.store import Failures, canonical_json, sha256_bytes
from pipeline.store.blobs import Blobs, LostBlobError
from schemas.params import DiffusionPictures, ImagesApiPictures

if TYPE_CHECKING:
    from PIL import Image

    from pipeline.annotators import Asking, Panel, Voter
    from pipeline.collect.blocklist import BlockLists
    from pipeline.engine import Answer, Request
    from pipeline.generate.diffusion import DiffusionGenerator
    from pipeline.workspace import Progress, Workspace

__all__ = ["AUTHOR", "KILLED", "Made", "make_pictures", "requests"]

AUTHOR = "holisafe-pipeline"
KILLED = "killed the process that made it"
"""Why there is no picture of which no exception tells."""
STAGE = "generate"


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a picture that was wanted.

    Attributes:
        row: of `images.parquet`; None where there is no picture.
        call_keys: of the calls behind it.
    """

    row: dict[str, Any] | None
    call_keys: tuple[str, ...]


@dataclass(frozen=True)
class _Asker:
    """Who asks, as plans call it."""

    name: str
    voter: Voter


def make_pictures(
    workspace: Workspace, lists: BlockLists, failures: Failures, progress: Progress
) -> Iterator[Made]:
    """Have the prompts written, then every generator's pictures made, in the order of params.

    Args:
        workspace: what is wanted, and where what is made is kept.
        lists: of pictures that are not to be kept.
        failures: takes those that were not made, or not kept.
        progress: is told of each call and picture.

    Raises:
        EndpointError: when an endpoint cannot be used, or the budget is spent. What was made is kept.
    """
    params = workspace.params
    makers = params.generate.pictures
    check_makers(params, workspace.classes(), workspace.root / "params.yaml")
    file = _prompt_file(workspace)
    wanted = wanted_pictures(makers, workspace.classes(), file, params.seed, failures)
    written = _written(workspace, file, wanted, failures, progress)
    # A call may have been paid for although its prompt is not used.
    used = admitted(written, failures, [maker.name for maker in makers])
    kept = {picture.wanted.id for picture in used}
    yield from (Made(None, (p.call_key,)) for p in written if p.wanted.id not in kept and p.call_key)
    for place, maker in enumerate(makers):
        mine = [picture for picture in used if picture.wanted.maker == place]
        progress.start(f"pictures, {maker.name}", len(mine))
        if maker.kind == "diffusion":
            yield from _diffused(workspace, maker, mine, lists, failures, progress)
        else:
            yield from _ordered(workspace, maker, mine, lists, failures, progress)


def requests(workspace: Workspace, panel: Panel) -> Iterator[tuple[Asking, list[tuple[str, Request]]]]:
    """Who asks, with all the calls that this stage has for it now, each with its class.

    A picture whose prompt is not written yet counts with the prompt that would be composed: the number and
    the price of such calls are right, their words are not.
    """
    from pipeline.engine import open_cache
    from pipeline.engine.answers import judge

    params = workspace.params
    makers = params.generate.pictures
    if not params.asked(("image_prompt", "picture")):
        return
    file = _prompt_file(workspace)
    wanted = wanted_pictures(makers, workspace.classes(), file, params.seed)
    pictures = [_composed(file, w) for w in wanted]
    if params.generate.writer is not None:
        voter = panel.voters[params.generate.writer]
        calls = [writer_request(voter, file, w) for w in wanted]
        named = [(w.info.name, call) for w, call in zip(wanted, calls, strict=True)]
        yield _Asker(f"prompt-writer@{voter.name}", voter), named
        with open_cache(workspace.calls) as cache:
            known = cache.get_many([call.key for call in calls])
        for i, call in enumerate(calls):
            record = known.get(call.key)
            status, said, _ = judge(record, call.schema) if record is not None else ("error", None, "")
            if status == "ok" and isinstance(said, WrittenPrompt):
                pictures[i] = Picture(wanted[i], said, {}, call.key)
    used = admitted(pictures, Failures(STAGE), [maker.name for maker in makers])
    for place, maker in enumerate(makers):
        if maker.kind == "images_api":
            voter = panel.voters[maker.endpoint]
            mine = [picture for picture in used if picture.wanted.maker == place]
            orders = [(picture.wanted.info.name, _order(voter, maker, picture)) for picture in mine]
            yield _Asker(f"{maker.name}@{voter.name}", voter), orders


def _prompt_file(workspace: Workspace) -> ImagePromptFile:
    return load_image_prompt(workspace.root / workspace.params.prompts / "generate" / "image_prompt.yaml")


def _composed(file: ImagePromptFile, wanted: Wanted) -> Picture:
    return Picture(wanted, file.compose(wanted.triple), {"writer": "composed", "version": file.version}, "")


def _written(
    workspace: Workspace,
    file: ImagePromptFile,
    wanted: Sequence[Wanted],
    failures: Failures,
    progress: Progress,
) -> list[Picture]:
    """The prompts, in the order of what is wanted; those that were not written are failures."""
    from pipeline.annotators import open_panel

    writer = workspace.params.generate.writer
    if writer is None:
        return [_composed(file, w) for w in wanted]
    makers = workspace.params.generate.pictures
    # Closed again before pictures are made: a local model would hold memory that they need.
    with open_panel(workspace, STAGE) as panel:
        voter = panel.voters[writer]
        calls = [writer_request(voter, file, w) for w in wanted]
        progress.start("image prompts", len(calls))
        answers = _asked(voter, calls, progress, warm=voter.local)
    found = []
    for w, answer in zip(wanted, answers, strict=True):
        if answer.status == "ok" and isinstance(answer.value, WrittenPrompt):
            origin = {
                "writer": f"{voter.backend_id}/{voter.model}",
                "version": file.version,
                "call_key": answer.key,
            }
            found.append(Picture(w, answer.value, origin, answer.key))
        else:
            why = "" if answer.status == "blocked" else answer.error
            name = f"picture:{makers[w.maker].name}"
            failures.add(w.id, name, f"prompt not written ({answer.status})", why)
    return found


def _asked(voter: Voter, calls: list[Request], progress: Progress, *, warm: bool = False) -> list[Answer]:
    """The answers to calls; an outage is none."""
    from pipeline.engine import all_answered

    if not calls:
        return []
    answers = voter.engine.ask_all(
        calls,
        stage=STAGE,
        on_progress=lambda _done, _total: progress.advance(),
        warm=calls[0].messages[:-1] if warm else None,
    )
    all_answered(voter.name, answers)
    return answers


def _diffused(
    workspace: Workspace,
    maker: DiffusionPictures,
    pictures: Sequence[Picture],
    lists: BlockLists,
    failures: Failures,
    progress: Progress,
) -> Iterator[Made]:
    from pipeline.generate.finished import Finished, FinishedPicture
    from schemas.errors import InputError

    try:
        generator = _generator(maker, workspace.root)
    except ValueError as error:
        raise InputError(
            f"{workspace.root / 'params.yaml'}: generate.pictures, {maker.name}: {error}"
        ) from error
    finished = Finished(workspace.state / "pictures", lists)
    # Batches are cut from the whole list, so that a run that was killed goes on with the same companions.
    batches = []
    for start in range(0, len(pictures), maker.batch):
        batch = pictures[start : start + maker.batch]
        prompts = [picture.prompt for picture in batch]
        seeds = [image_seed(workspace.params.seed, picture.wanted.id) for picture in batch]
        asked = generator.asked(prompts, seeds)
        ids = [picture.wanted.id for picture in batch]
        job = _Job(maker, workspace.root, str(asked[0]["revision"]), prompts, seeds, ids)
        batches.append((batch, job, asked))
    lacking = {n for n, (_, _, asked) in enumerate(batches) if None in map(finished.get, asked)}
    new = in_processes(
        _diffuse,
        (batches[n][1] for n in sorted(lacking)),
        chunk=1,
        worth=False,  # on this machine they take turns at what there is
        gpu=maker.device.startswith("cuda"),
    )
    for n, (batch, _, asked) in enumerate(batches):
        if n in lacking:
            _, files = next(new)
            if isinstance(files, WorkerDied):
                for picture in batch:
                    progress.advance()
                    failures.add(picture.wanted.id, f"picture:{maker.name}", "picture not made", KILLED)
                    yield Made(None, (picture.call_key,) if picture.call_key else ())
                continue
            for i, (data, recipe) in enumerate(files):
                if recipe["revision"] != asked[i]["revision"]:
                    raise InputError(f"{maker.model}: a worker has other weights than this machine")
                finished.put(asked[i], FinishedPicture(data, recipe))
        kept = [finished.get(recipe) for recipe in asked]
        for picture, made in zip(batch, kept, strict=True):
            progress.advance()
            assert made is not None  # noqa: S101 - kept or made just now
            keys = (picture.call_key,) if picture.call_key else ()
            if isinstance(made, BlockedError):
                failures.add(made.sha256, f"picture:{picture.wanted.id}", made.reason, made.detail)
                yield Made(None, keys)
                continue
            if not made.data:
                why = "the model's safety checker took the picture away"
                failures.add(picture.wanted.id, f"picture:{maker.name}", "picture withheld", why)
                yield Made(None, keys)
                continue
            name = f"diffusion:{made.recipe['model']}"
            yield Made(_row(maker, picture, made.data, made.recipe, name), keys)
    _loaded.cache_clear()  # where it was loaded here: later stages want its memory


@dataclass(frozen=True)
class _Job:
    """A batch of pictures, as who makes it is told."""

    maker: DiffusionPictures
    root: Path
    revision: str
    prompts: list[ImagePrompt]
    seeds: list[int]
    ids: list[str]


def _diffuse(job: _Job) -> list[tuple[bytes, dict[str, Any]]]:
    """The file and the recipe of each picture of a batch; no bytes where the safety checker took it away."""
    generator = _loaded(job.maker.model_dump_json(), job.root, job.revision)
    made = generator.generate(job.prompts, job.seeds)
    return [
        (b"" if new.withheld else encode(new.image, name)[0], new.recipe)
        for name, new in zip(job.ids, made, strict=True)
    ]


@lru_cache(maxsize=1)  # the next one's networks want the memory
def _loaded(maker: str, root: Path, _revision: str) -> DiffusionGenerator:
    return _generator(DiffusionPictures.model_validate_json(maker), root)


def _generator(maker: DiffusionPictures, root: Path) -> DiffusionGenerator:
    """What makes the pictures; its networks are loaded when it is first used."""
    from pipeline.generate.diffusion import DiffusionGenerator

    folder = root / maker.model
    return DiffusionGenerator(
        folder if folder.is_dir() else maker.model,
        revision=maker.revision,
        dtype=maker.dtype,
        device=maker.device,
        steps=maker.steps,
        guidance=maker.guidance,
        size=maker.size,
        negative_prompt=maker.negative_prompt,
        offload=maker.offload,
        safety_checker=maker.safety_checker,
    )


def _order(voter: Voter, maker: ImagesApiPictures, picture: Picture) -> Request:
    """The call that has a picture made."""
    from pipeline.engine import ImageRequest

    size = "{}x{}".format(*maker.size)
    params = {k: v for k, v in {"size": size, **voter.parameters}.items() if v is not None}
    message = {"role": "user", "content": picture.said.prompt}
    return ImageRequest(voter.backend_id, voter.model, [message], params)


def _ordered(
    workspace: Workspace,
    maker: ImagesApiPictures,
    pictures: Sequence[Picture],
    lists: BlockLists,
    failures: Failures,
    progress: Progress,
) -> Iterator[Made]:
    from pipeline.annotators import open_panel

    received = Screen(Blobs(workspace.blobs), lists)
    with open_panel(workspace, STAGE, keep=received.put) as panel:
        voter = panel.voters[maker.endpoint]
        calls = [_order(voter, maker, picture) for picture in pictures]
        answers = _asked(voter, calls, progress)
    for picture, call, answer in zip(pictures, calls, answers, strict=True):
        keys = (*([picture.call_key] if picture.call_key else []), *([call.key] if answer.raw else []))
        name, wanted = f"picture:{maker.name}", picture.wanted
        if answer.status != "ok":
            # What an endpoint says may repeat the prompt; a blocked one is not repeated.
            why = "" if answer.status == "blocked" else answer.error
            failures.add(wanted.id, name, f"picture not made ({answer.status})", why)
            yield Made(None, keys)
            continue
        kept = json.loads(answer.raw)
        try:
            file = received(kept["sha256"])
        except LostBlobError as error:
            failures.add(wanted.id, name, "picture lost", str(error))
            # Its call serves nothing any more: `holisafe calls gc --unused` forgets it.
            yield Made(None, keys[:-1])
            continue
        except BlockedError as error:
            failures.add(error.sha256, f"picture:{wanted.id}", error.reason, _why_blocked(error))
            yield Made(None, keys if error.listed else keys[:-1])
            continue
        image = _opened(file, workspace.params.curate.max_pixels)
        if image is None:
            failures.add(wanted.id, name, "not a picture that can be read", f"{kept['bytes']} bytes")
            yield Made(None, keys)
            continue
        revised = kept.get("revised_prompt", "")
        if reason := refusal(ImagePrompt(revised, wanted.info, wanted.safe)):
            # It was drawn from this and not from ours; not repeated, as no refused prompt is.
            failures.add(wanted.id, name, "revised prompt refused", reason)
            yield Made(None, keys)
            continue
        recipe = {
            "method": "images_api",
            "backend": voter.backend_id,
            "model": voter.model,
            "parameters": dict(call.params),
            "prompt": picture.said.prompt,
            "revised_prompt": revised,
            "call_key": call.key,
            "received_sha256": kept["sha256"],
        }
        data, _ = encode(image, wanted.id)
        if match := lists.hit(data):
            blocked = received.block(kept["sha256"], match)
            failures.add(blocked.sha256, f"picture:{wanted.id}", blocked.reason, blocked.detail)
            yield Made(None, keys)
            continue
        yield Made(_row(maker, picture, data, recipe, f"images_api:{voter.backend_id}/{voter.model}"), keys)


def _why_blocked(error: BlockedError) -> str:
    """What to say of a picture whose bytes were not kept."""
    if error.listed:
        return error.detail
    # To have it made again is to pay again, so that nobody does it unasked.
    return (
        f"{error.detail}; the list holds it no more, but its bytes were not kept: "
        "`holisafe calls gc --unused --yes` forgets the call; delete data/generate and build to pay again"
    )


def _opened(data: bytes, max_pixels: int) -> Image.Image | None:
    """The picture on white, or None where the bytes are none, or one that is too large."""
    try:
        with opened(data, max_pixels) as image:
            return flattened(image).convert("RGB")
    except RejectedImageError:
        return None


def _row(
    maker: DiffusionPictures | ImagesApiPictures,
    picture: Picture,
    data: bytes,
    recipe: dict[str, Any],
    generator: str,
) -> dict[str, Any]:
    wanted, said = picture.wanted, picture.said
    triple = wanted.triple
    about = {
        "concept": triple.concept,
        "setting": triple.setting,
        "style": triple.style,
        "written_by": picture.origin,
    }
    return {
        "image_id": sha256_bytes(data),
        "source_uri": f"picture:{wanted.id}",
        "source_kind": maker.kind,
        "page_url": "",
        "source_package": "",
        "author": AUTHOR,
        "licence": maker.licence,
        "redistributable": maker.redistributable,
        "retrieved_at": "",
        "generator": generator,
        "recipe": canonical_json({**recipe, **about}),
        "caption": said.caption,
        "subject": said.subject,
        "objects": list(said.objects),
        "intended_class": wanted.info.name,
        "intended_safe": wanted.safe,
        "bytes": data,
    }
