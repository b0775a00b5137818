"""People look at rows of a dataset and say what is safe: queues, a local page, SQLite, and the way back."""

from pipeline.review.items import ANSWERS, ASKED, ReviewSet, open_review_set
from pipeline.review.queues import RANDOM, Queue, build_queues, read_suspects
from pipeline.review.store import Given, ReviewStore, Screen
from pipeline.review.votes import Target, default_target, flow_back, named_target

__all__ = [
    "ANSWERS",
    "ASKED",
    "RANDOM",
    "Given",
    "Queue",
    "ReviewSet",
    "ReviewStore",
    "Screen",
    "Target",
    "build_queues",
    "default_target",
    "flow_back",
    "named_target",
    "open_review_set",
    "read_suspects",
]
