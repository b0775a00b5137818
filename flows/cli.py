"""The command line. Thin: each command calls a plain function, imported when it is needed.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input. Errors go to standard error.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="holisafe",
    help="Build, extend and audit vision-language safety datasets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="The weights that the embedded profile uses.", no_args_is_help=True)
taxonomy_app = typer.Typer(help="The classes of harm and their policies.", no_args_is_help=True)
label_app = typer.Typer(help="Label any file with the annotators of the build.", no_args_is_help=True)
calls_app = typer.Typer(help="The model calls that were answered.", no_args_is_help=True)
endpoint_app = typer.Typer(help="Endpoints of our own.", no_args_is_help=True)
profile_app = typer.Typer(help="Whole params files to begin with.", no_args_is_help=True)
export_app = typer.Typer(help="A built dataset in other formats, and on the Hub.", no_args_is_help=True)
review_app = typer.Typer(help="The votes of those who reviewed.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(profile_app, name="profile")
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(label_app, name="label")
app.add_typer(calls_app, name="calls")
app.add_typer(endpoint_app, name="endpoint")
app.add_typer(export_app, name="export")
app.add_typer(review_app, name="review-votes")

Json = Annotated[Path, typer.Option("--json", help="Where to write the result.")]
Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="A built dataset, such as data/dataset.")]
NewFolder = Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")]
Side = Annotated[Literal["train", "test", "all"], typer.Option("--split", help="The side that goes out.")]
AnyDataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="Ours, a holisafe_bench.json, Parquet, or hub:OWNER/NAME.")
]
Store = Annotated[Path | None, typer.Option(help="Where votes are kept; default: .holisafe/reviews.sqlite.")]
VotesTo = Annotated[Path | None, typer.Option(help="A .jsonl or .csv; default: see docs/review.md.")]
Audit = Annotated[
    Path | None, typer.Option(help="Folder of an audit, for its suspects; default: the one beside DATASET.")
]
Seed = Annotated[int, typer.Option(help="Of the random queue's order.")]
Sample = Annotated[int, typer.Option(help="Rows in the random queue at most.", min=1)]
HERE = Path()
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - its name, no token
INTERRUPTED = 130  # what Typer makes of a KeyboardInterrupt


@app.command()
def build() -> None:
    """Run every stage whose inputs have changed, in this folder, and show what came out."""
    from flows.commands import build_workspace

    build_workspace(HERE.resolve())


@app.command("run")
def run(stage: Annotated[str, typer.Argument(help="One of the nine stages; see `holisafe status`.")]) -> None:
    """Run one stage if its inputs have changed."""
    from flows.commands import run_one

    run_one(HERE.resolve(), stage)


@app.command()
def status() -> None:
    """Say of each stage whether it is up to date."""
    from flows.commands import show_status

    show_status(HERE.resolve())


@app.command("plan")
def plan(
    json: Annotated[Path | None, typer.Option("--json", help="Where to write it as JSON, too.")] = None,
) -> None:
    """Say what a build would do: cells, what will run and why, calls and what they cost. Nothing is sent."""
    from flows.call_commands import show_plan

    show_plan(HERE.resolve(), json)


@calls_app.command("show")
def calls_show(
    key: Annotated[str | None, typer.Argument(help="Start of a call's key; default: the last ones.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only calls of this stage.")] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
) -> None:
    """Show a call in full, or the last calls."""
    from flows.call_commands import show_calls

    show_calls(HERE.resolve(), key, stage, limit)


@calls_app.command("explain")
def calls_explain(stage: Annotated[str, typer.Argument(help="A stage that asks models.")]) -> None:
    """Say why calls of a stage would be sent now: what differs from those that are answered."""
    from flows.call_commands import explain_calls

    explain_calls(HERE.resolve(), stage)


@calls_app.command("cost")
def calls_cost(
    json: Annotated[Path | None, typer.Option("--json", help="Where to write it as JSON, too.")] = None,
) -> None:
    """Show what calls took and cost, by stage, by category and for each row."""
    from flows.call_commands import show_call_costs

    show_call_costs(HERE.resolve(), json)


@calls_app.command("gc")
def calls_gc(
    unused: Annotated[bool, typer.Option("--unused", help="Also calls this build does not use.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
) -> None:
    """Find what no longer serves anything, and delete it with --yes."""
    from flows.call_commands import sweep_calls

    sweep_calls(HERE.resolve(), unused=unused, yes=yes)


@endpoint_app.command("script")
def endpoint_script(
    file: Annotated[Path, typer.Argument(help="What to answer, and how to fail; see docs/engine.md.")],
    port: Annotated[int, typer.Option(help="Where to listen on 127.0.0.1; 0 takes a free port.")] = 0,
) -> None:
    """Serve an OpenAI-compatible endpoint that answers from a file, for tests, demos and benchmarks."""
    from flows.call_commands import run_script

    run_script(file, port)


@models_app.command("list")
def models_list() -> None:
    """List the registered weights, and which are here."""
    from flows.commands import list_models

    list_models()


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from `models list`; default: all that a build uses.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the one model's file from here.")
    ] = None,
) -> None:
    """Fetch weights and check their SHA-256 before anything loads them."""
    from flows.commands import pull_models

    pull_models(HERE.resolve(), names or [], source)


@models_app.command("verify")
def models_verify() -> None:
    """Hash the weights that are here again."""
    from flows.commands import verify_models

    verify_models()


@profile_app.command("use")
def profile_use(
    name: Annotated[str, typer.Argument(help="A file under profiles/, without .yaml.")],
    yes: Annotated[bool, typer.Option("--yes", help="Overwrite a params.yaml that holds changes.")] = False,
) -> None:
    """Write a profile to params.yaml."""
    from flows.commands import write_profile

    write_profile(HERE.resolve(), name, overwrite=yes)


@profile_app.command("list")
def profile_list() -> None:
    """List the profiles."""
    from flows.commands import list_profiles

    list_profiles(HERE.resolve())


@taxonomy_app.command("show")
def taxonomy_show(
    name: Annotated[str | None, typer.Argument(help="One class; default: all.")] = None,
) -> None:
    """Show the classes, or the whole policy of one."""
    from flows.commands import show_taxonomy

    show_taxonomy(HERE.resolve(), name)


@taxonomy_app.command("check")
def taxonomy_check() -> None:
    """Check params, taxonomy, query scenes and responses, and say what is wrong."""
    from flows.commands import check_taxonomy

    check_taxonomy(HERE.resolve())


@taxonomy_app.command("add")
def taxonomy_add(
    category: Annotated[str, typer.Argument(help="One of the taxonomy's, or a new one.")],
    name: Annotated[str, typer.Argument(help="Of the class: small letters, digits and _.")],
    title: Annotated[str, typer.Option("--title", help="For people; default: the name.")] = "",
    filled: Annotated[
        Path | None, typer.Option("--from", help="YAML with `class` and `scenes`; default: gaps to fill.")
    ] = None,
) -> None:
    """Add a class: policy, concepts, prompts, quotas and query scenes, with an id of its own for good."""
    from flows.taxonomy_commands import add_to_taxonomy

    add_to_taxonomy(HERE.resolve(), category, name, title or name.replace("_", " ").capitalize(), filled)


@taxonomy_app.command("retire")
def taxonomy_retire(
    name: Annotated[str, typer.Argument(help="Of the class.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what goes.")] = False,
) -> None:
    """Take a class away, and say which rows go with it. Its id is never used again."""
    from flows.taxonomy_commands import retire_from_taxonomy

    retire_from_taxonomy(HERE.resolve(), name, yes=yes)


@taxonomy_app.command("lock")
def taxonomy_lock(
    note: Annotated[str, typer.Option("--note", help="Why, for the change log.")] = "",
) -> None:
    """Give classes that were written into the taxonomy by hand their ids for good."""
    from flows.taxonomy_commands import lock_taxonomy

    lock_taxonomy(HERE.resolve(), note)


@taxonomy_app.command("log")
def taxonomy_log() -> None:
    """Show which classes came and went, by version of the taxonomy."""
    from flows.taxonomy_commands import show_taxonomy_log

    show_taxonomy_log(HERE.resolve())


@app.command()
def relabel(
    policy: Annotated[
        Path, typer.Option("--policy", help="A copy of the taxonomy whose policies are worded otherwise.")
    ],
    json: Annotated[Path | None, typer.Option("--json", help="Where to write it as JSON, too.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many calls it would be, send none.")
    ] = False,
) -> None:
    """Ask again what changed clauses of the policy decide, and show which labels flip. Changes no table."""
    from flows.policy_commands import relabel_with

    relabel_with(HERE.resolve(), policy, json, dry_run=dry_run)


@label_app.command("texts")
def label_texts(
    file: Annotated[Path, typer.Argument(help="JSON Lines with id and text.")], json: Json
) -> None:
    """Label texts: safe or not, class, P(unsafe), and each annotator's vote."""
    from flows.commands import label_text_file

    label_text_file(HERE.resolve(), file, json)


@label_app.command("images")
def label_images(folder: Annotated[Path, typer.Argument(help="Any folder with images.")], json: Json) -> None:
    """Label images: safe or not, class, P(unsafe), and each annotator's vote."""
    from flows.commands import label_image_folder

    label_image_folder(HERE.resolve(), folder, json)


@app.command()
def dedup(
    folder: Annotated[Path, typer.Argument(help="Any folder with images, at any depth.")],
    json: Json,
    rotations: Annotated[bool, typer.Option("--rotations", help="Also copies turned by quarters.")] = False,
) -> None:
    """Find the images of a folder that are one picture: copies, edited and mirrored ones too."""
    from flows.commands import find_folder_duplicates

    find_folder_duplicates(folder, json, rotations=rotations)


@app.command()
def audit(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="Ours, a holisafe_bench.json or its folder, Parquet, or hub:OWNER/NAME."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where index.html and metrics.json go.")],
    votes: Annotated[
        Path | None, typer.Option("--votes", help="A file of votes on it, as for `holisafe agreement`.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another dataset, whose copies are looked for.")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Also plant flaws in copies of it, and say what is found.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of folds and resamples.")] = 0,
) -> None:
    """Audit any dataset with HoliSafe's eight fields: what leaks, repeats, is missing, is to be judged."""
    from flows.dataset_commands import audit_dataset

    audit_dataset(dataset, out, votes, against, seed, self_test=self_test)


@app.command()
def agreement(
    votes: Annotated[
        Path,
        typer.Argument(
            metavar="VOTES", help="CSV with item_id, annotator and value, or our own votes.parquet."
        ),
    ],
    json: Json,
    order: Annotated[
        str, typer.Option("--order", help="Values of an ordinal scale, lowest first: low,middle,high.")
    ] = "",
    rounds: Annotated[int, typer.Option("--rounds", help="Resamples behind an interval.", min=0)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the resamples.", min=0)] = 0,
) -> None:
    """Say how far annotators agree: raw, kappas, alpha, AC1 and AC2, prevalence, each with an interval."""
    from flows.audit_commands import show_agreement

    show_agreement(votes, json, order, rounds, seed)


@export_app.command("holisafe-bench")
def export_holisafe_bench(
    dataset: Dataset,
    out: NewFolder,
    split: Side = "test",
    with_unverified: Annotated[
        bool, typer.Option("--with-unverified", help="Also SSU rows whose harm is not proven.")
    ] = False,
) -> None:
    """Write HoliSafe's own format: what its eight fields can say; the rest is left out and counted."""
    from flows.dataset_commands import export_as_bench

    export_as_bench(dataset, out, split, with_unverified=with_unverified)


@export_app.command("llava")
def export_llava(
    dataset: Dataset,
    out: NewFolder,
    split: Side = "train",
    rationale: Annotated[
        bool, typer.Option("--rationale", help="Also the structured rationale, as a field of its own.")
    ] = False,
) -> None:
    """Write LLaVA conversations for training."""
    from flows.dataset_commands import export_as_llava

    export_as_llava(dataset, out, split, rationale=rationale)


@export_app.command("hub")
def export_hub(
    dataset: Dataset,
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Show it to everybody; it stays gated.")] = False,
    token_env: Annotated[str, typer.Option(help="The variable that holds the token.")] = TOKEN_VARIABLE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
) -> None:
    """Upload to the Hugging Face Hub, gated and private, only images that may be given away."""
    from flows.dataset_commands import export_to_hub

    export_to_hub(dataset, repo, token_env, public=public, dry_run=dry_run)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A built dataset.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    json: Annotated[
        Path | None, typer.Option("--json", help="Where to write every row that differs.")
    ] = None,
) -> None:
    """Say what differs between two datasets: rows, labels and responses, by class, type and side."""
    from flows.dataset_commands import show_diff

    show_diff(a, b, json)


@app.command()
def review(
    dataset: AnyDataset,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    reviewer: Annotated[str, typer.Option(help="Who you are; else the page asks.")] = "",
    audit: Audit = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    votes_to: VotesTo = None,
    store: Store = None,
    cap: Annotated[int, typer.Option(help="Rows that are enough for one reviewer a day.", min=1)] = 200,
    sample: Sample = 300,
    seed: Seed = 0,
) -> None:
    """Judge rows of a dataset in the browser, blind, on this machine alone."""
    from flows.review_commands import ReviewOptions, serve

    serve(
        HERE.resolve(),
        dataset,
        ReviewOptions(audit, seed, sample),
        store=store,
        votes_to=votes_to,
        port=port,
        reviewer=reviewer,
        cap=cap,
        browser=not no_browser,
    )


@review_app.command("status")
def review_status(
    dataset: AnyDataset, audit: Audit = None, store: Store = None, sample: Sample = 300, seed: Seed = 0
) -> None:
    """Show how far everybody is, and whether votes wait to be written."""
    from flows.review_commands import ReviewOptions, show_votes

    show_votes(HERE.resolve(), dataset, ReviewOptions(audit, seed, sample), store=store)


@review_app.command("export")
def review_export(
    dataset: AnyDataset,
    store: Store = None,
    votes_to: VotesTo = None,
    only_gold: Annotated[
        bool, typer.Option("--only-gold", help="Only votes that may measure others.")
    ] = False,
) -> None:
    """Bring the file of votes up to date; lines of others in it stay as they are."""
    from flows.review_commands import export_votes

    export_votes(HERE.resolve(), dataset, store=store, votes_to=votes_to, gold=only_gold)


@review_app.command("to-label-studio")
def review_to_label_studio(
    dataset: AnyDataset,
    out: NewFolder,
    queue: Annotated[
        str, typer.Option(help="Which rows: random, suspects, disagreements, class:NAME.")
    ] = "random",
    prefix: Annotated[
        str | None, typer.Option(help="What stands before images/… in a task; default: Label Studio's own.")
    ] = None,
    with_votes: Annotated[
        bool, typer.Option("--with-votes", help="Also the dataset's votes, as predictions.")
    ] = False,
    audit: Audit = None,
    sample: Sample = 300,
    seed: Seed = 0,
) -> None:
    """Write rows as tasks for Label Studio."""
    from flows.review_commands import ReviewOptions, to_label_studio

    options = ReviewOptions(audit, seed, sample)
    to_label_studio(dataset, options, out, queue=queue, prefix=prefix, with_votes=with_votes)


@review_app.command("from-label-studio")
def review_from_label_studio(
    dataset: AnyDataset,
    file: Annotated[Path, typer.Argument(help="What Label Studio exported as JSON.")],
    store: Store = None,
    name: Annotated[
        list[str] | None, typer.Option(help="WHO=NAME: an e-mail address or id, and the reviewer it is.")
    ] = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="The tasks were the random queue, and nobody saw votes.")
    ] = False,
) -> None:
    """Take what was answered in Label Studio as votes."""
    from flows.review_commands import from_label_studio

    from_label_studio(HERE.resolve(), dataset, file, store=store, names=name or [], gold=gold)


def main() -> None:
    """Run the command line and turn known errors into messages and exit codes."""
    from schemas.errors import InputError

    # Asked to end, we end as with Ctrl-C: paid answers come in, and what runs for us ends too.
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        app()
    except InputError as error:
        sys.stderr.write(f"holisafe: {error}\n")
        raise SystemExit(2) from error
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        sys.stderr.write("holisafe: stopped; what was answered is kept, run the same command to go on\n")
        raise SystemExit(1) from None
    except Exception as error:
        if not isinstance(error, _known_errors()):
            raise
        sys.stderr.write(f"holisafe: {error}\n")
        raise SystemExit(1) from error


def _as_ctrl_c(_number: int, frame: FrameType | None) -> None:
    # The handler of the moment: asyncio has one of its own. In the background there may be none.
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all there is to say; of any other the traceback is wanted."""
    from pipeline.engine import CallCacheError, EndpointError
    from pipeline.models import ModelError

    return ModelError, EndpointError, CallCacheError, OSError, RuntimeError
