"""Faults at random points of running builds, a recovery after each few, and the same bytes: `make chaos`.

A small rehearsal (scripted endpoint, cards, all nine stages) is built once with nothing in its way. Then
builds of it are hit: each fault of `chaos_faults.py` at a point drawn from a seed that is printed. A fault
that hit nothing, because the build had ended, does not count and is drawn again. After one to three faults
`holisafe build` is run again, and its dataset must be the reference's, byte for byte.

docs/chaos.md says what is checked, and shows a run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.rehearsal import digests, workspace  # noqa: E402
from pipeline.engine import open_cache  # noqa: E402
from tests.conftest import HOLISAFE  # noqa: E402
from tests.postgres import PostgresServer  # noqa: E402
from tests.s3 import bucket_of  # noqa: E402
from tests.verify.chaos_faults import (  # noqa: E402
    FAULTS,
    NAMES,
    Build,
    ClockJumps,
    Endpoint,
    Fault,
    LeftOutError,
    MissedError,
    PrefectServer,
    Reference,
    Site,
    command_line,
    kept_images,
    shim,
    small_disk,
)
from tests.verify.faults import processes  # noqa: E402

CLASSES = ["medical_advice", "property_crime"]
SCALE = 0.04
PLACES = 8
"""Calls under way at most, to each of the endpoints that params name."""
LATENCY = {"latency_ms": 40, "jitter_ms": 60}
PICTURES = {
    "kind": "images_api", "name": "painted", "endpoint": "writer", "size": [64, 64], "licence": "CC0-1.0",
    "redistributable": "yes", "per_class": {"safe": 12, "unsafe": 0},
}  # fmt: skip
UNLIKE = {"match": "Picture: ", "answer": "unsafe", "logprobs": {"unsafe": -0.05, "safe": -3.0}}
"""What is no card is found to be what it was not meant for, and goes no further."""
LIMIT_S, LIMIT_TIMES = 240.0, 8
"""Within which a build ends: so many seconds, or times as long as one with nothing in its way."""
GONE_S = 20.0
"""Within which all processes of a build have ended after it; on a slow machine, as long as that one takes."""
MISSES = 8
"""So often in a row a fault may hit nothing."""


@dataclass
class Told:
    """One fault, for the log."""

    number: int
    kind: str
    point: float
    what: str
    code: int | None
    said: str
    seconds: float
    """From the fault to the build's end."""
    round: int = 0
    recovery_s: float = 0.0
    paid_again: int = 0
    """Calls of the whole round that were made twice."""
    wrong: list[str] = field(default_factory=list)


class Suite:
    """The reference, the servers, the workspaces by setting, and what was told so far."""

    def __init__(self, folder: Path, seed: int, opened: ExitStack) -> None:
        """Build the reference."""
        self.folder, self.seed, self.opened = folder, seed, opened
        self.rng = random.Random(seed)  # noqa: S311 - to be repeated
        root = workspace(folder / "reference", 0, SCALE)
        script = root / "profiles" / "rehearsal" / "script.yaml"
        answers = yaml.safe_load(script.read_text()) | LATENCY
        answers["answers"].append(UNLIKE)
        script.write_text(yaml.safe_dump(answers, sort_keys=False))
        self.endpoint = Endpoint(script)
        opened.callback(self.endpoint.stop)
        self.prefect = PrefectServer(folder / "prefect-server")
        opened.callback(self.prefect.stop)
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["only_classes"] = CLASSES
        params["generate"]["pictures"] = [PICTURES]
        for said in params["endpoints"].values():
            said |= {"base_url": f"http://127.0.0.1:{self.endpoint.port}/v1", "concurrency": PLACES}
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        self.under_way = PLACES * len(params["endpoints"])
        self.sites: dict[str, Site] = {}
        self.told: list[Told] = []
        self.rounds = 0
        self.reference = self._reference(root)
        whole = sum(self.reference.seconds.values())
        self.limit, self.gone = max(LIMIT_S, LIMIT_TIMES * whole), max(GONE_S, whole)

    def _reference(self, root: Path) -> Reference:
        began = time.monotonic()
        done = subprocess.run(
            [HOLISAFE, "build"], cwd=root, env=os.environ | {"PREFECT_API_URL": self.prefect.url},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"the build that nothing happens to failed:\n{done.stderr[-2000:]}")
        whole = time.monotonic() - began
        folder = root / ".holisafe" / "stages"
        seconds = {n: float(json.loads((folder / f"{n}.json").read_text())["seconds"]) for n in NAMES}
        seconds["start"] = max(0.0, whole - sum(seconds.values()))
        with open_cache(root / ".holisafe" / "calls.sqlite") as cache:
            records = {record.key: record for record in cache.records()}
        images = kept_images(root)
        if not images:
            raise SystemExit("the build asked for no images, and faults of a bucket would hit nothing")
        return Reference(root, digests(root), images, records, seconds)

    def site(self, setting: str) -> Site:
        """The workspace in which faults of a setting happen.

        Raises:
            LeftOutError: where the setting cannot be had.
        """
        if setting not in self.sites:
            folder = self.folder / setting
            if setting == "disk":
                small_disk(folder)
                self.opened.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
            else:
                folder.mkdir()
            site = Site(folder / "build", self.reference, self.endpoint, self.prefect)
            if setting == "postgres":
                home = self.folder / "database"
                home.mkdir()
                try:
                    server = PostgresServer(home)
                except pytest.skip.Exception as why:
                    raise LeftOutError(str(why)) from None
                self.opened.callback(server.stop)
                site.use(server)
            if setting == "s3":
                site.keep_images_in(self.opened.enter_context(bucket_of("images")))
            self.sites[setting] = site
        return self.sites[setting]

    def usable(self, only: list[str]) -> list[type[Fault]]:
        """The faults that can be made here, of some or of all; says which cannot, and why."""
        found = []
        for kind in [kind for kind in FAULTS if not only or kind.name in only]:
            try:
                self.site(kind.setting)
                if kind is ClockJumps:
                    shim(self.folder / kind.setting)
                found.append(kind)
            except LeftOutError as why:
                print(f"left out: {kind.name}: {why}", flush=True)
        return found

    def run(self, wanted: int, only: list[str]) -> None:
        """Rounds, until so many faults have hit."""
        bag = self._bag(self.usable(only))
        kinds: list[type[Fault]] = []
        while len(self.told) < wanted:
            most = min(self.rng.randint(1, 3), wanted - len(self.told))
            kinds = kinds or [next(bag)]
            # The next of the same setting, so that a round stays in one workspace.
            while len(kinds) < most + 1 and all(k.setting == kinds[0].setting for k in kinds):
                kinds.append(next(bag))
            now = [kind for kind in kinds[:most] if kind.setting == kinds[0].setting]
            kinds = kinds[len(now) :]
            self._round(now)

    def _bag(self, kinds: list[type[Fault]]) -> Iterator[type[Fault]]:
        """All kinds in an order that is drawn anew each time: none is left to luck."""
        while True:
            mixed = self.rng.sample(kinds, len(kinds))
            yield from sorted(mixed, key=lambda kind: mixed.index(_first(mixed, kind.setting)))

    def _round(self, kinds: list[type[Fault]]) -> None:
        """Some faults in one workspace, then a build with nothing in its way."""
        self.rounds += 1
        site = self.site(kinds[0].setting)
        before, owed, losing, some = self.endpoint.requests(), 0, 0, []
        for kind in kinds:
            for attempt in range(MISSES):
                # Of its own, so that a seed draws the same for a fault whatever hit nothing before it.
                rng = random.Random(f"{self.seed}:{len(self.told) + len(some)}:{attempt}")  # noqa: S311
                owed += self._work(site, kind, rng)
                told = self._one(site, kind(rng))
                losing += kind.loses
                if told is not None:
                    some.append(told)
                    break
            else:
                raise SystemExit(f"{kind.name}: {MISSES} times in a row it hit nothing")
        wrong, seconds = self._recover(site)
        again = self.endpoint.requests() - before - owed
        if again > losing * self.under_way:
            wrong.append(f"{again} calls paid again, where at most {losing * self.under_way} were under way")
        for told in some:
            told.round, told.recovery_s, told.paid_again = self.rounds, round(seconds, 1), max(0, again)
            told.wrong += wrong
            told.number = len(self.told) + 1
            self.told.append(told)
            print(_line(told), flush=True)
        if wrong:  # what is broken must not be told of every round that follows
            shutil.rmtree(site.root)
            fresh = Site(site.root, self.reference, self.endpoint, self.prefect)
            if site.postgres is not None:
                fresh.use(site.postgres)
            if site.bucket is not None:
                fresh.keep_images_in(site.bucket)
            self.sites[kinds[0].setting] = fresh

    def _work(self, site: Site, kind: type[Fault], rng: random.Random) -> int:
        """See that a build has something to do that the fault can hit; how many answers were taken away."""
        at = site.next_stage()
        if at is None or at > NAMES.index(kind.last) or (kind.asks and site.answered() >= self._calls() - 1):
            return site.unmake(rng, kind.last)
        return 0

    def _calls(self) -> int:
        return len(self.reference.records)

    def _one(self, site: Site, fault: Fault) -> Told | None:
        """One fault, and how its build ends; None where it hit nothing."""
        kind = type(fault)
        told = Told(0, kind.name, fault.share, "", None, "", 0.0)
        build = Build(site, fault.environment(site))
        hit = False
        try:
            told.what = fault.hit(site, build)
            hit = True
        except MissedError:
            pass
        except AssertionError as error:
            hit, told.what = True, str(error)
            told.wrong.append(told.what)
        began = time.monotonic()
        told.code, said = build.end(self.limit)
        told.seconds = round(time.monotonic() - began, 1)
        told.said = said[-1].replace(f"{self.folder}/", "") if said else ""
        ends = kind.ends if hit else (0,)
        if hit and 1 in kind.ends and 0 not in kind.ends and told.code == 0:
            hit = False  # it had nothing left to do that the fault stands in the way of
            ends = (0,)
        told.wrong += list(_wrong_end(told.code, said, ends))
        if left := self._left(site):
            told.wrong.append(f"processes left behind: {left}")
        if hit or kind.setting == "disk":
            fault.mend(site)
        if not hit and told.wrong:
            told.what = "nothing had happened to it"
            return told
        return told if hit else None

    def _left(self, site: Site) -> list[str]:
        """What still runs in the workspace; it is ended, so that it is told once."""
        deadline = time.monotonic() + self.gone
        while (left := processes(site.root)) and time.monotonic() < deadline:
            time.sleep(0.1)
        said = [command_line(pid)[:120] for pid in left]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return said

    def end_builds(self) -> None:
        """End what still runs, where the suite itself is stopped."""
        for site in self.sites.values():
            for pid in processes(site.root):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _recover(self, site: Site) -> tuple[list[str], float]:
        """Build with nothing in the way: what is wrong with it, and how long it took."""
        began = time.monotonic()
        code, said = Build(site, {}).end(self.limit)
        seconds = time.monotonic() - began
        wrong = [f"recovery: {why}" for why in _wrong_end(code, said, (0,))]
        have = digests(site.root)
        want = self.reference.files
        if odd := sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name)):
            wrong.append(f"{len(odd)} files differ, {odd[0]} among them")
        if site.images() != self.reference.images:
            wrong.append("images that were asked for are others, or more or fewer")
        keys = site.keys()
        if odd_calls := len(keys ^ self.reference.records.keys()):
            wrong.append(f"{odd_calls} calls more or fewer than the reference has")
        if left := self._left(site):
            wrong.append(f"recovery: processes left behind: {left}")
        return wrong, seconds


def _first(kinds: list[type[Fault]], setting: str) -> type[Fault]:
    return next(kind for kind in kinds if kind.setting == setting)


def _wrong_end(code: int | None, said: list[str], ends: tuple[int, ...] | list[int]) -> Iterator[str]:
    """What is wrong with how a build ended."""
    if code is None:
        yield "it did not end in time"
    elif code not in ends:
        yield f"exit code {code}: {said[-1] if said else 'nothing said'}"
    if any("Traceback" in line for line in said):
        yield f"a traceback: {said[-1]}"
    if code == 1 and sum(line.startswith("holisafe: ") for line in said) != 1:
        yield f"not one line that says what happened: {said[-2:]}"


def _line(told: Told) -> str:
    state = "MISS" if told.wrong else "ok  "
    text = f"{state}  {told.number:3d} {told.kind} ({told.what}): exit code {told.code}"
    return text + "".join(f"\n      {why}" for why in told.wrong)


def table(told: list[Told]) -> str:
    """The log by kind of fault, in Markdown."""
    lines = [
        "| fault | hit | recovered | build went on or ended after, median s | recovery, median s "
        "| calls paid again, most in a round |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for kind in [kind.name for kind in FAULTS]:
        some = [one for one in told if one.kind == kind]
        if some:
            well = sum(not one.wrong for one in some)
            ended = statistics.median(one.seconds for one in some)
            recovery = statistics.median(one.recovery_s for one in some)
            again = max(one.paid_again for one in some)
            lines.append(f"| {kind} | {len(some)} | {well} | {ended:.1f} | {recovery:.1f} | {again} |")
    well = sum(not one.wrong for one in told)
    lines.append(f"| all | {len(told)} | {well} | | | {max((one.paid_again for one in told), default=0)} |")
    return "\n".join(lines)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=50, help="how many have to hit")
    parser.add_argument("--seed", type=int, help="of all that is drawn; by default drawn itself, and printed")
    names = [kind.name for kind in FAULTS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=[], help="kinds of fault; else all of them"
    )
    parser.add_argument("--log", type=Path, help="a file for a JSON object a fault; beside it a table (.md)")
    given = parser.parse_args()
    seed: int = int.from_bytes(os.urandom(4)) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="holisafe-chaos-")).resolve()
    # Its own, so that other builds on this machine are not met at Prefect's database.
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    # Told to end, it ends its servers and unmounts its disk.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    began = time.monotonic()
    print(f"seed {seed}", flush=True)
    with ExitStack() as opened:
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        suite = Suite(folder, seed, opened)
        whole = sum(suite.reference.seconds.values())
        print(f"the reference: {len(suite.reference.records)} calls in {whole:.1f} s", flush=True)
        try:
            suite.run(given.faults, given.only)
        finally:
            suite.end_builds()
            if given.log:
                lines = [json.dumps({"seed": seed, "calls": suite._calls(), "seconds": round(whole, 1)})]
                lines += [json.dumps(asdict(told)) for told in suite.told]
                given.log.write_text("\n".join(lines) + "\n")
                given.log.with_suffix(".md").write_text(table(suite.told) + "\n")
    print(f"\n{table(suite.told)}\n")
    missed = sum(bool(told.wrong) for told in suite.told)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(suite.told)} faults, {len(suite.told) - missed} recovered, {minutes:.1f} min, seed {seed}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
