"""The command line. Thin: each command calls a plain function, imported when it is needed.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input. Errors go to standard error.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from flows.cli import bench, builds, calls, datasets, judges, labels, reviews, safellava, taxonomy

__all__ = ["app", "main"]

app = typer.Typer(
    name="holisafe",
    help="Build, extend and audit vision-language safety datasets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# In the order in which `holisafe --help` lists them.
for part in (builds, taxonomy, labels, datasets, reviews):
    app.add_typer(part.commands)
app.add_typer(builds.models, name="models")
app.add_typer(builds.profile, name="profile")
app.add_typer(taxonomy.taxonomy, name="taxonomy")
app.add_typer(labels.label, name="label")
app.add_typer(judges.judge, name="judge")
app.add_typer(calls.calls, name="calls")
app.add_typer(calls.endpoint, name="endpoint")
app.add_typer(datasets.export, name="export")
app.add_typer(reviews.review_votes, name="review-votes")
app.add_typer(bench.bench, name="bench")
app.add_typer(safellava.safellava, name="safellava")

INTERRUPTED = 130  # what Typer makes of a KeyboardInterrupt


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
    except ImportError as error:
        from pipeline.extras import missing

        if (told := missing(error)) is None:
            raise
        sys.stderr.write(f"holisafe: {told}\n")
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
