r"""An OpenAI-compatible endpoint that answers from a file and fails by seed: for tests, demos and benchmarks.

A script is YAML or JSON:

    version: 1
    seed: 7
    models: [judge]
    latency_ms: 200
    answers:
      - match: "item (\\d+)"          # searched in the text of the last user message; the first that fits
        answer: {reason: 'item \1', unsafe: false}
      - answer: I do not know.        # no match: fits everything
    faults: {status_429: 0.02, truncated: 0.01}

In answers and refusals `\1` and `\g<name>` stand for what the groups of `match` caught, `\w{5}` for five
invented words (by seed and request), and every other backslash for itself. An answer that is a mapping is
sent as JSON; in one that is text nothing is escaped.

A picture (`/v1/images/generations`) is made of the seed and the prompt; where the first rule that fits the
prompt has a refusal, it is refused as by a content policy.

Whether a request fails, and how, depends on the seed, on what its body says and on how often that body came
before: not on the order of requests, and a retry is rolled anew.
"""

from pipeline.engine.scripted.endpoint import ScriptedEndpoint
from pipeline.engine.scripted.replies import Answerer, RejectedError, Reply
from pipeline.engine.scripted.script import Faults, Rule, Script, backend_id, load_script
from pipeline.engine.scripted.server import ScriptedServer, serve

__all__ = [
    "Answerer",
    "Faults",
    "RejectedError",
    "Reply",
    "Rule",
    "Script",
    "ScriptedEndpoint",
    "ScriptedServer",
    "backend_id",
    "load_script",
    "serve",
]
