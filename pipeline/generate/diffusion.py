"""Pictures from a diffusion model, with the recipe of each, within what the taxonomy allows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image

from pipeline.encoders._common import fixed_threads
from pipeline.generate.draw import JSON
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import ClassInfo

__all__ = ["DiffusionGenerator", "GeneratedImage", "ImagePrompt", "PromptRefusedError", "refusal"]

_ANY_MINOR: Final = "child"


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A prompt, the class it is for, and the side that it aims at."""

    text: str
    info: ClassInfo
    safe: bool


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A generated picture.

    Attributes:
        image: the picture, RGB; black where the model's safety checker took it away.
        recipe: all that it takes to generate it again.
        withheld: whether the safety checker took the picture away: a failure, not a picture.
    """

    image: Image.Image
    recipe: dict[str, JSON]
    withheld: bool


class PromptRefusedError(ValueError):
    """A prompt that may not be sent to an image model."""


def refusal(prompt: ImagePrompt) -> str | None:
    """Why no image may be generated from this prompt, or None. It does not repeat the prompt."""
    if reason := forbidden_reason(prompt.text):
        return reason
    # Sexual images are never generated, for whatever class. forbidden_reason knows the words, and answers
    # to them beside a word for a minor: so with such a word it tells whether there is any.
    if forbidden_reason(f"{_ANY_MINOR} {prompt.text}"):
        return "the prompt holds a sexual word; such images are never generated, write it without"
    allowed = prompt.info.spec.generation.images
    if allowed == "never":
        return f"the taxonomy says `images: never` for {prompt.info.name}"
    if allowed != "allowed" and not prompt.safe:
        return (
            f"the taxonomy says `images: {allowed}` for {prompt.info.name}: no unsafe image may be generated"
        )
    return None


class DiffusionGenerator:
    """A text-to-image pipeline of diffusers, one picture at a time.

    A picture depends on its own prompt and seed alone: batches would make it depend on its neighbours, since
    sums of another shape round differently.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        device: str = "cpu",
        steps: int = 30,
        guidance: float = 7.5,
        size: tuple[int, int] = (512, 512),
        negative_prompt: str = "",
    ) -> None:
        """Remember what to load; the model is loaded when it is first used.

        Args:
            model: a folder with a saved pipeline, or a repository on the Hugging Face Hub.
            revision: commit of the repository; needed there, so that the model can not change unseen. For a
                folder it is worked out from the files.
            dtype: of weights and sums.
            device: as torch names it.
            steps: of the scheduler.
            guidance: weight of the prompt.
            size: width and height in pixels.
            negative_prompt: what pictures should not show.

        Raises:
            ValueError: for a repository without a revision.
        """
        self._folder = Path(model) if Path(model).is_dir() else None
        if self._folder is None and not revision:
            raise ValueError(
                f"{model}: no such folder; for a repository on the Hub give a `revision` (a commit)"
            )
        self._model = str(model)
        self._revision = revision
        self._dtype, self._device = dtype, device
        self._steps, self._guidance, self._size, self._negative = steps, guidance, size, negative_prompt

    def generate(self, prompts: Sequence[ImagePrompt], seeds: Sequence[int]) -> list[GeneratedImage]:
        """One picture for each prompt.

        Args:
            prompts: all of them are checked before the first picture is made.
            seeds: one for each prompt.

        Raises:
            PromptRefusedError: naming the first prompt that is refused by its place, and why.
            ValueError: when there are not as many seeds as prompts.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts, but {len(seeds)} seeds: give one for each")
        for i, prompt in enumerate(prompts):
            if reason := refusal(prompt):
                raise PromptRefusedError(f"prompt {i}: {reason}")
        with fixed_threads():
            return [self._one(p.text, seed) for p, seed in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> GeneratedImage:
        import torch

        # On the CPU whatever the device is: the same noise everywhere.
        noise = torch.Generator("cpu").manual_seed(seed)
        width, height = self._size
        # Some families of pipelines know neither a negative prompt nor a safety checker.
        extra = {"negative_prompt": self._negative} if self._negative else {}
        result = self._pipeline(
            prompt=prompt,
            num_inference_steps=self._steps,
            guidance_scale=self._guidance,
            width=width,
            height=height,
            generator=noise,
            **extra,
        )
        flags = getattr(result, "nsfw_content_detected", None)
        recipe: dict[str, JSON] = {
            "method": "diffusion",
            # Of a folder its name alone: paths are nobody's business.
            "model": self._folder.name if self._folder else self._model,
            "revision": self._fingerprint,
            "pipeline": type(self._pipeline).__name__,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "dtype": self._dtype,
            "steps": self._steps,
            "guidance": self._guidance,
            "size": [width, height],
            "seed": seed,
            "prompt": prompt,
            "negative_prompt": self._negative,
            "safety_checker": getattr(self._pipeline, "safety_checker", None) is not None,
            "versions": {name: version(name) for name in ("diffusers", "torch")},
        }
        return GeneratedImage(result.images[0].convert("RGB"), recipe, bool(flags and flags[0]))

    @cached_property
    def _pipeline(self) -> Any:
        import torch
        from diffusers import AutoPipelineForText2Image

        untyped: Any = AutoPipelineForText2Image
        pipeline = untyped.from_pretrained(
            str(self._folder or self._model),
            revision=None if self._folder else self._revision,
            torch_dtype=getattr(torch, self._dtype),
            use_safetensors=True,  # a pickle can run code
            local_files_only=self._folder is not None,
        ).to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def _fingerprint(self) -> str:
        """The commit, or for a folder a hash over its files."""
        if self._folder is None:
            return self._revision or ""
        whole = hashlib.sha256()
        for file in sorted(p for p in self._folder.rglob("*") if p.is_file()):
            whole.update(file.relative_to(self._folder).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return f"sha256:{whole.hexdigest()}"
