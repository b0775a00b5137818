"""Does a dataset teach? A small guard, trained on it and on what it is held against, and tested elsewhere."""

from pipeline.prove.arms import Arm, arms_of
from pipeline.prove.guard import SEEDS, Encoded, encode, train_guard
from pipeline.prove.proof import Cell, Proof, prove, rows_hash
from pipeline.prove.written import markdown, read_proof, write_proof

__all__ = [
    "SEEDS",
    "Arm",
    "Cell",
    "Encoded",
    "Proof",
    "arms_of",
    "encode",
    "markdown",
    "prove",
    "read_proof",
    "rows_hash",
    "train_guard",
    "write_proof",
]
