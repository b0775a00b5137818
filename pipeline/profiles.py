"""Profiles: whole params files to begin with, one a file under `profiles/`."""

from __future__ import annotations

from pathlib import Path

from pipeline.store import write_text
from schemas.errors import InputError, load_yaml, validated
from schemas.params import Params

__all__ = ["profile_names", "use_profile"]


def profile_names(root: Path) -> list[str]:
    """The profiles of a workspace."""
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def use_profile(root: Path, name: str, *, overwrite: bool = False) -> bool:
    """Write a profile to `params.yaml`.

    Args:
        root: the workspace.
        name: one of `profile_names`.
        overwrite: also where `params.yaml` was changed since it was a profile.

    Returns:
        Whether the file was another before.

    Raises:
        InputError: when there is no such profile, it is wrong, or `params.yaml` holds changes.
    """
    names = profile_names(root)
    if name not in names:
        raise InputError(f"no profile {name!r}; there are: {', '.join(names) or 'none in profiles/'}")
    path, target = root / "profiles" / f"{name}.yaml", root / "params.yaml"
    validated(Params, load_yaml(path), path)
    text = path.read_text()
    before = target.read_text() if target.exists() else ""
    if before == text:
        return False
    kept = {(root / "profiles" / f"{known}.yaml").read_text() for known in names}
    if before and before not in kept and not overwrite:
        raise InputError(f"{target} is none of the profiles: it holds changes; keep a copy, then add --yes")
    write_text(target, text)
    return True
