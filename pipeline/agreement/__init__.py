"""How far annotators agree: raw agreement, prevalence and coefficients, each with an interval."""

from pipeline.agreement.parts import Figure, Pair, Part
from pipeline.agreement.problems import Problem
from pipeline.agreement.report import Agreement, Block, agreement_of, measure
from pipeline.agreement.votes import Votes, read_votes

__all__ = [
    "Agreement",
    "Block",
    "Figure",
    "Pair",
    "Part",
    "Problem",
    "Votes",
    "agreement_of",
    "measure",
    "read_votes",
]
