"""Who votes on images, texts and pairs, and how votes become labels.

Evidence is independent or it does not count: text annotators see the query alone, image annotators never
see a query, and nobody is told what an item was meant to be. See docs/quality.md for what they are worth.
"""

from pipeline.annotators.aggregate import ClassLabel, Label, aggregate, aggregate_class
from pipeline.annotators.base import (
    PEOPLE,
    Annotator,
    ImageItem,
    PairItem,
    Question,
    Status,
    TextItem,
    Vote,
    describe,
    image_item,
)
from pipeline.annotators.classes import NearestClass, image_classes, text_classes
from pipeline.annotators.clauses import AXES, Axis, Clause, clause_of, clauses
from pipeline.annotators.dawid_skene import Confusion, confusions
from pipeline.annotators.files import label_images, label_texts
from pipeline.annotators.harm import Harm, HarmReader, HarmSeer, Statement
from pipeline.annotators.heads import (
    DIM,
    PAIR_FEATURES,
    PAIR_HEAD,
    TEXT_HEAD,
    LinearHead,
    PairHead,
    PairNetwork,
    TextHead,
    load_head,
    load_pair_network,
    save_head,
    save_pair_network,
)
from pipeline.annotators.llm import (
    Asking,
    CaptionReader,
    ImageVLM,
    LanguageModel,
    PairLLM,
    PairVLM,
    Questioner,
    SeesPixels,
    TextLLM,
    Voter,
)
from pipeline.annotators.panel import (
    Panel,
    ask_together,
    check_endpoints,
    open_endpoint,
    open_panel,
    open_voters,
    vote_all,
)
from pipeline.annotators.people import People, human_votes, open_people
from pipeline.annotators.pixels import EncoderAnnotator, NudityAnnotator, embedded
from pipeline.annotators.prompt import Prompt, load_prompt
from pipeline.annotators.reliability import Posterior, Reliability, effective_number, left_out, posteriors
from pipeline.annotators.safety_head import (
    SafetyHead,
    SafetyHeadAnnotator,
    load_safety_head,
    save_safety_head,
)

__all__ = [
    "AXES",
    "DIM",
    "PAIR_FEATURES",
    "PAIR_HEAD",
    "PEOPLE",
    "TEXT_HEAD",
    "Annotator",
    "Asking",
    "Axis",
    "CaptionReader",
    "ClassLabel",
    "Clause",
    "Confusion",
    "EncoderAnnotator",
    "Harm",
    "HarmReader",
    "HarmSeer",
    "ImageItem",
    "ImageVLM",
    "Label",
    "LanguageModel",
    "LinearHead",
    "NearestClass",
    "NudityAnnotator",
    "PairHead",
    "PairItem",
    "PairLLM",
    "PairNetwork",
    "PairVLM",
    "Panel",
    "People",
    "Posterior",
    "Prompt",
    "Question",
    "Questioner",
    "Reliability",
    "SafetyHead",
    "SafetyHeadAnnotator",
    "SeesPixels",
    "Statement",
    "Status",
    "TextHead",
    "TextItem",
    "TextLLM",
    "Vote",
    "Voter",
    "aggregate",
    "aggregate_class",
    "ask_together",
    "check_endpoints",
    "clause_of",
    "clauses",
    "confusions",
    "describe",
    "effective_number",
    "embedded",
    "human_votes",
    "image_classes",
    "image_item",
    "label_images",
    "label_texts",
    "left_out",
    "load_head",
    "load_pair_network",
    "load_prompt",
    "load_safety_head",
    "open_endpoint",
    "open_panel",
    "open_people",
    "open_voters",
    "posteriors",
    "save_head",
    "save_pair_network",
    "save_safety_head",
    "text_classes",
    "vote_all",
]
