"""How far annotators agree: raw agreement, prevalence and coefficients, each with an interval."""

from pipeline.agreement.coefficients import Patterns, Seen, cells_of, cohen, gwet, patterns_of, raw, sums
from pipeline.agreement.parts import Figure, Pair, Part
from pipeline.agreement.report import Agreement, Block, agreement_of, measure
from pipeline.agreement.votes import Problem, Votes, read_votes

__all__ = [
    "Agreement",
    "Block",
    "Figure",
    "Pair",
    "Part",
    "Patterns",
    "Problem",
    "Seen",
    "Votes",
    "agreement_of",
    "cells_of",
    "cohen",
    "gwet",
    "measure",
    "patterns_of",
    "raw",
    "read_votes",
    "sums",
]
