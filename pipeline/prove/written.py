"""A proof as JSON, and as a table that stands in a dataset card."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.prove.proof import MEASURES, Figure, Proof
from pipeline.store import write_json, write_text
from schemas.errors import InputError

__all__ = ["markdown", "read_proof", "write_proof"]


def write_proof(proof: Proof, out: Path) -> None:
    """Write `proof.json` and `proof.md` to a folder.

    Raises:
        InputError: when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder with --out")
    write_json(out / "proof.json", proof.as_json())
    write_text(out / "proof.md", markdown(proof))


def read_proof(folder: Path) -> Proof:
    """Read what `write_proof` wrote.

    Raises:
        InputError: when it is not there, or is something else.
    """
    path = folder / "proof.json"
    try:
        return TypeAdapter(Proof).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name a folder that `holisafe prove` wrote") from None
    except ValidationError as error:
        raise InputError(f"{path}: not what `holisafe prove` writes; run it again") from error


def markdown(proof: Proof) -> str:
    """The section of a card."""
    lines = [
        "## Does it teach?",
        "",
        f"A guard (two frozen encoders and one hidden layer) was trained on {proof.rows} rows in each way,",
        f"with {len(proof.seeds)} seeds, to tell unsafe from safe pairs. Area under the curve, 1 at best and",
        ".5 by chance: the mean over seeds, with a 95 % interval that draws leak groups anew: copies of a",
        "picture, and what the dataset keeps in one `leak_group`, are one observation.",
        "`all` is of all rows, the others of one unsafe type and SSS; `behind` is how much less than the",
        "first way it has on all rows. Fewer than ten rows of a label give no figure.",
        "",
    ]
    for tested in proof.tested:
        rows = ", ".join(f"{n} {kind}" for kind, n in tested.rows.items()) or "no row"
        left = f"; {tested.copies} left out, whose picture is trained on" if tested.copies else ""
        lines += [f"Tested on **{_plain(tested.name)}** ({rows}{left}):", ""]
        names = ["all", *MEASURES[1:], "behind"]
        lines += [f"| trained on | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for cell in proof.cells:
            if cell.on == tested.name:
                shown = [*(cell.figures[name] for name in MEASURES), cell.less_than_first]
                lines.append(f"| {_plain(cell.arm)} | {' | '.join(map(_shown, shown))} |")
        lines.append("")
    return "\n".join(lines)


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    return f"{_digits(figure.value)} ({_digits(figure.low)} to {_digits(figure.high)})"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")


def _plain(name: str) -> str:
    return name.replace("|", "\\|").replace("*", "\\*")
