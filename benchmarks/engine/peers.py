"""Side by side with bespoke-curator and distilabel, which are installed in environments of their own.

    python -m benchmarks.engine.peers [--out FILE] [--count 4000] [--runs 3] [--envs DIR]

Each client is a process of its own and asks the same scripted endpoint the same questions, 64 at once; their
order changes from run to run, and times are medians. What a client sends is counted at the server. Rows are
compared with what was to be answered, one by one. Memory is the most that the client's processes held
together: resident, sampled five times a second, where a page that two of them share counts for both; and
with such pages counted once, sampled once a second as that takes longer.

Time is that of the generation call alone, without imports. Every client keeps its answers as it does by
default, on the same disk. What else is set for a peer, and why, is said in its program (`peer_curator`,
`peer_distilabel`). Telemetry is off, and so is what would be fetched from the net; homes and caches are in
folders that are removed. A peer that cannot be installed or fails is reported so, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.engine.__main__ import PACKAGES, Endpoint, Result, endpoint, scratch
from benchmarks.surroundings import FailedError, environment, install, last_line
from pipeline.store import write_json

# The newest that pip finds together for Python 3.11. distilabel imports `requests` without asking for it.
PEERS: dict[str, tuple[str, ...]] = {
    "curator": (
        "bespokelabs-curator==0.1.31",
        *("aiohttp==3.13.5", "datasets==3.6.0", "litellm==1.83.7", "openai==2.30.0", "pydantic==2.12.5"),
    ),
    "distilabel": (
        "distilabel[openai,instructor]==1.5.3",
        *("datasets==5.2.0", "instructor==1.17.0", "openai==3.3.0", "pydantic==2.14.4", "requests==2.34.2"),
    ),
}
QUIET = {
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "DISTILABEL_LOG_LEVEL": "WARNING",  # else every request is a line
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
    "PYTHONWARNINGS": "ignore",
    "TELEMETRY_ENABLED": "false",  # curator's
}
OURS = "ours"
ROWS = 1000  # where what is sent again is counted, and in the run with refusals
REFUSED = 0.02
SAMPLE_S = 0.2
SHARED_EVERY = 5  # samples
TIMED = ("throughput_50ms", "throughput_0ms", "limited")
LIMIT_S = 300.0
RESUME_LIMIT_S = 60.0
NOTE = (
    "curator asks about its limits at each start, and about structured answers before it sends rows: counted."
)


@dataclass(frozen=True)
class Client:
    """A client under measurement: its command line for an endpoint, a folder and a number of rows."""

    name: str
    command: Callable[[Endpoint, Path, int], list[str]]
    packages: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)


def ours() -> Client:
    """Our own engine, in this environment."""
    packages = {name: version(name) for name in ("holisafe-pipeline", "aiohttp", "openai", "pydantic")}
    return Client(
        OURS, lambda served, folder, count: served.command(folder / "calls.sqlite", count), packages
    )


def peer(name: str, envs: Path) -> Client:
    """A peer, installed when it is not yet or other versions are asked for now.

    Raises:
        FailedError: when it cannot be.
    """
    there = install(name, PEERS[name], envs)
    program = str(Path(__file__).with_name(f"peer_{name}.py"))

    def command(served: Endpoint, folder: Path, count: int) -> list[str]:
        return [str(there.python), program, served.base_url, str(count), str(folder / "cache")]

    return Client(name, command, there.packages, QUIET)


@contextmanager
def started(client: Client, served: Endpoint, folder: Path, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A client that runs, in a process group of its own; nothing of the group outlives the block."""
    settings = client.settings and client.settings | {"HOME": str(folder)}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            client.command(served, folder, count),
            stdout=out,
            stderr=err,
            env=os.environ | settings,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def processes(group: int) -> Iterator[tuple[Path, int]]:
    """The folders of a group's processes below /proc, and their resident pages."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process that has ended since
            fields = stat.read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) == group:
                yield stat.parent, int(fields[21])


def resident_mb(group: int) -> float:
    """Resident megabytes of a group's processes, now."""
    return sum(pages for _, pages in processes(group)) * os.sysconf("SC_PAGESIZE") / 1e6


def shared_once_mb(group: int) -> float:
    """The same with shared pages once: memory in parts among the sharers, files as the one that maps most.

    Files are not taken in parts: other programs share them too, our endpoint most of all.
    """
    parts, files = 0, 0
    for folder, _ in processes(group):
        with suppress(OSError):
            parts += kilobytes(folder / "smaps_rollup", "Pss_Anon", "Pss_Shmem")
            files = max(files, kilobytes(folder / "status", "RssFile"))
    return (parts + files) * 1024 / 1e6


def kilobytes(path: Path, *names: str) -> int:
    """The sum of some fields of a file below /proc."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return sum(int(value.split()[0]) for name, _, value in lines if name in names)


def measured(client: Client, served: Endpoint, folder: Path, count: int, limit_s: float = LIMIT_S) -> Result:
    """Run a client to its end.

    Returns:
        Seconds, rows that are right, wrong and missing, the peak of memory, and what the server counted.

    Raises:
        FailedError: when it ends with an error, or not in time.
    """
    ends = time.monotonic() + limit_s
    resident, shared_once = [0.0], [0.0]
    with started(client, served, folder, count) as process:
        while process.poll() is None:
            if time.monotonic() > ends:
                raise FailedError(f"did not end within {limit_s:g} s")
            resident.append(resident_mb(process.pid))
            if len(resident) % SHARED_EVERY == 0:
                shared_once.append(shared_once_mb(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_S)
    if process.returncode:
        raise FailedError(last_line((folder / "err").read_text()))
    try:
        said = json.loads(last_line((folder / "out").read_text()))
    except ValueError:
        raise FailedError("its last line is no figures") from None
    if client.name == OURS:
        answered = said["statuses"].get("ok", 0)
        said |= {"right": answered - said["wrong"], "missing": count - answered}
    rows = {name: said[name] for name in ("seconds", "right", "wrong", "missing")}
    peaks = {"peak_mb": max(resident), "shared_once_mb": max(shared_once)}
    return {**rows, **peaks, "server": served.stats()}


def timed(clients: list[Client], count: int, runs: int, latency_ms: float, **faults: float) -> Result:
    """The same work for each client, in every run in another order."""
    kept: dict[str, list[Result]] = {client.name: [] for client in clients}
    failed: dict[str, str] = {}
    with endpoint(latency_ms, **faults) as served:
        for run in range(runs):
            turn = run % len(clients)
            for client in clients[turn:] + clients[:turn]:
                if client.name in failed:
                    continue
                served.reset()
                try:
                    with scratch() as folder:
                        kept[client.name].append(measured(client, served, folder, count))
                except FailedError as error:
                    failed[client.name] = str(error)
    return {
        name: {"failed": failed[name], "all": results} if name in failed else summary(results, count)
        for name, results in kept.items()
    }


def summary(results: list[Result], count: int) -> Result:
    """The medians of some runs, and the highest peaks."""
    seconds = statistics.median(result["seconds"] for result in results)
    peaks = {name: max(result[name] for result in results) for name in ("peak_mb", "shared_once_mb")}
    return {"seconds": seconds, "requests_per_s": count / seconds, **peaks, "all": results}


def sent_again(client: Client, count: int) -> Result:
    """What a rerun sends, and then a run with a tenth more rows."""
    runs: Result = {}
    with endpoint() as served, scratch() as folder:
        try:
            measured(client, served, folder, count)
            for name, rows in (("rerun", count), ("append", count + count // 10)):
                served.reset()
                runs[name] = measured(client, served, folder, rows)
        except FailedError as error:
            runs["failed"] = str(error)
    return runs


def killed(client: Client, count: int) -> Result:
    """Kill -9 when half was sent, all processes of the client at once, and run again to the end."""
    result: Result = {}
    with endpoint(20) as served, scratch() as folder:
        with started(client, served, folder, count) as process:
            while served.stats()["requests"] < count // 2 and process.poll() is None:
                time.sleep(0.005)
        result["sent_before"] = served.stats()["requests"]
        try:
            result["resumed"] = measured(client, served, folder, count, RESUME_LIMIT_S)
        except FailedError as error:
            sent = served.stats()["requests"] - result["sent_before"]
            result["failed"] = f"run again, {error}; it sent {sent:,} more"
    return result


def table(report: Result, names: list[str]) -> str:
    """The figures as plain text; what could not be measured is a dash with its reason below."""
    rows, tenth = report["rows"], report["rows"] // 10
    reasons: dict[str, str] = {}

    def cells(label: str, scenario: str, show: Callable[[Result], str]) -> list[str]:
        line = [label]
        for name in names:
            figures = report["results"][scenario].get(name, report["clients"][name])
            if "failed" in figures:
                reasons.setdefault(f"{name}: {figures['failed']}", label)
            line.append("-" if "failed" in figures else show(figures))
        return line

    def again(stage: str) -> Callable[[Result], str]:
        return lambda figures: f"{figures[stage]['server']['requests']:,}" + absent(figures[stage])

    def checked(name: str) -> str:
        results = [report["results"][scenario].get(name, {}).get("all", []) for scenario in TIMED]
        runs = [run for each in results for run in each]
        return ", ".join(f"{sum(run[kind] for run in runs):,}" for kind in ("right", "wrong", "missing"))

    def absent(run: Result) -> str:
        return f" ({run['missing']:,} rows missing)" if run["missing"] else ""

    def rate(figures: Result) -> str:
        return f"{figures['requests_per_s']:,.0f}"

    def resumed(figures: Result) -> str:
        repeated = figures["resumed"]["server"]["repeated"]
        return f"{repeated:,} of {figures['sent_before']:,}" + absent(figures["resumed"])

    lines = [
        ["", *(f"{name} {report['clients'][name].get('version', '')}" for name in names)],
        cells("requests/s at 50 ms", "throughput_50ms", rate),
        cells("requests/s at 0 ms", "throughput_0ms", rate),
        cells("peak MB at 50 ms", "throughput_50ms", lambda figures: f"{figures['peak_mb']:,.0f}"),
        cells("  shared pages once", "throughput_50ms", lambda figures: f"{figures['shared_once_mb']:,.0f}"),
        cells(f"2 % refused, {rows:,}: s", "limited", lambda figures: f"{figures['seconds']:.1f}"),
        ["rows right, wrong, missing", *(checked(name) for name in names)],
        cells(f"rerun of {rows:,}: sent", "sent_again", again("rerun")),
        cells(f"append {tenth:,}: sent", "sent_again", again("append")),
        cells("kill -9 halfway: sent twice", "killed", resumed),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(widths[i + 1]) for i, cell in enumerate(line[1:]))])
        for line in lines
    ]
    told = [f"- {reason} ({label})" for reason, label in reasons.items()]
    return "\n".join([*aligned, *told, NOTE])


def main() -> int:
    """Install the peers, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--count", type=int, default=4000, help="requests of a run for throughput")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--envs", type=Path, default=Path(".holisafe/peers"), help="the peers' environments")
    args = parser.parse_args()
    (Path.cwd() / ".holisafe").mkdir(exist_ok=True)
    rows = min(ROWS, args.count)
    report: Result = {
        "environment": environment(PACKAGES),
        "count": args.count,
        "runs": args.runs,
        "rows": rows,
    }
    report |= {"clients": {}, "results": {}}
    clients = [ours()]
    for name in PEERS:
        try:
            clients.append(peer(name, args.envs))
        except FailedError as error:
            report["clients"][name] = {"failed": str(error)}
            print(f"{name} could not be installed: {error}", flush=True)
    for client in clients:
        own = (
            version("holisafe-pipeline") if client.name == OURS else PEERS[client.name][0].partition("==")[2]
        )
        report["clients"][client.name] = {"version": own, "packages": client.packages}
    scenarios: dict[str, Callable[[], Result]] = {
        "throughput_50ms": lambda: timed(clients, args.count, args.runs, 50),
        "throughput_0ms": lambda: timed(clients, args.count, args.runs, 0),
        "limited": lambda: timed(clients, rows, args.runs, 50, status_429=REFUSED, retry_after_s=1),
        "sent_again": lambda: {client.name: sent_again(client, rows) for client in clients},
        "killed": lambda: {client.name: killed(client, rows) for client in clients},
    }
    for name, scenario in scenarios.items():
        began = time.monotonic()
        report["results"][name] = scenario()
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(report, [OURS, *PEERS]))
    if args.out:
        write_json(args.out, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
