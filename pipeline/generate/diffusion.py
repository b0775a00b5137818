"""Pictures from a diffusion model, with the recipe of each, within what the taxonomy allows."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pipeline.encoders._common import fixed_threads, quiet
from pipeline.generate.draw import JSON
from pipeline.generate.policy import ImagePrompt, refusal
from pipeline.store import canonical_json, sha256_text

__all__ = ["DiffusionGenerator", "GeneratedImage", "PromptRefusedError"]


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


class DiffusionGenerator:
    """A text-to-image pipeline of diffusers: Stable Diffusion, SDXL, SD 3.5, FLUX and their like.

    Made one at a time, a picture depends on its own prompt and seed alone. In a batch each still has its own
    noise, but its last bits may depend on its companions, since sums of another shape round differently: so
    its recipe names them.
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
        offload: Literal["none", "model", "sequential"] = "none",
        safety_checker: Literal["keep", "off"] = "keep",
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
            negative_prompt: what pictures should not show; left out where the pipeline knows none.
            offload: what waits in main memory while it is not used: nothing, whole models, single layers.
            safety_checker: whether the checker that a checkpoint brings is kept.

        Raises:
            ValueError: for a repository without a revision, and for `offload` without what it needs.
        """
        self._folder = Path(model) if Path(model).is_dir() else None
        if self._folder is None and not revision:
            raise ValueError(
                f"{model}: no such folder; for a repository on the Hub give a `revision` (a commit)"
            )
        if offload != "none" and find_spec("accelerate") is None:
            raise ValueError(
                f"offload: {offload}: this needs the package accelerate; install it or write none"
            )
        self._model = str(model)
        self._revision = revision
        self._dtype, self._device, self._offload = dtype, device, offload
        self._keeps_checker = safety_checker == "keep"
        self._steps, self._guidance, self._size, self._negative = steps, guidance, size, negative_prompt

    def generate(self, prompts: Sequence[ImagePrompt], seeds: Sequence[int]) -> list[GeneratedImage]:
        """One picture for each prompt, all in one batch.

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
            return self._together([prompt.text for prompt in prompts], seeds)

    def asked(self, prompts: Sequence[ImagePrompt], seeds: Sequence[int]) -> list[dict[str, JSON]]:
        """The recipe of each picture of a batch as far as it is known before the model is loaded."""
        return [self._asked([prompt.text for prompt in prompts], seeds, i) for i in range(len(prompts))]

    def _asked(self, prompts: Sequence[str], seeds: Sequence[int], place: int) -> dict[str, JSON]:
        width, height = self._size
        recipe: dict[str, JSON] = {
            "method": "diffusion",
            # Of a folder its name alone: paths are nobody's business.
            "model": self._folder.name if self._folder else self._model,
            "revision": self._fingerprint,
            "dtype": self._dtype,
            "device": self._device,
            "steps": self._steps,
            "guidance": self._guidance,
            "size": [width, height],
            "seed": seeds[place],
            "prompt": prompts[place],
            "negative_prompt": self._negative,
            "safety_checker": self._keeps_checker,
            "versions": {name: version(name) for name in ("diffusers", "torch")},
        }
        if len(prompts) > 1:
            together = sha256_text(canonical_json([list(prompts), list(seeds)]))
            recipe["batch"] = {"size": len(prompts), "place": place, "prompts_and_seeds_sha256": together}
        return recipe

    def _together(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[GeneratedImage]:
        import torch

        pipeline = self._pipeline
        width, height = self._size
        # Families of pipelines differ in what they know.
        known = inspect.signature(pipeline.__call__).parameters
        negative = self._negative if "negative_prompt" in known else ""
        extra = {"negative_prompt": [negative] * len(prompts)} if negative else {}
        result = pipeline(
            prompt=list(prompts),
            num_inference_steps=self._steps,
            guidance_scale=self._guidance,
            width=width,
            height=height,
            # On the CPU whatever the device is: the same noise everywhere.
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **extra,
        )
        flags = getattr(result, "nsfw_content_detected", None) or [False] * len(prompts)
        learned: dict[str, JSON] = {
            "pipeline": type(pipeline).__name__,
            "scheduler": type(pipeline.scheduler).__name__,
            "negative_prompt": negative,
            # Whether there was one, whatever was wanted.
            "safety_checker": getattr(pipeline, "safety_checker", None) is not None,
        }
        return [
            GeneratedImage(image.convert("RGB"), self._asked(prompts, seeds, i) | learned, bool(flags[i]))
            for i, image in enumerate(result.images)
        ]

    @cached_property
    def _pipeline(self) -> Any:
        import torch
        from diffusers import AutoPipelineForText2Image
        from diffusers.utils import logging as bars

        untyped: Any = AutoPipelineForText2Image
        bars.disable_progress_bar()
        with quiet():
            pipeline = untyped.from_pretrained(
                str(self._folder or self._model),
                revision=None if self._folder else self._revision,
                torch_dtype=getattr(torch, self._dtype),
                use_safetensors=True,  # a pickle can run code
                local_files_only=self._folder is not None,
            )
        if not self._keeps_checker and hasattr(pipeline, "safety_checker"):
            pipeline.safety_checker = None
        if self._offload == "model":
            pipeline.enable_model_cpu_offload(device=self._device)
        elif self._offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self._device)
        else:
            pipeline = pipeline.to(self._device)
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
