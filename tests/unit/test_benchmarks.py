"""`python -m benchmarks`: figures, bounds, entries that fail, the history and its table."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import HISTORY, main, put_table
from benchmarks.dedup.__main__ import beside
from benchmarks.entries import DATA, ENTRIES, Entry, Metric, Points, at, bound_of, held
from benchmarks.growth import stages_of, summary
from benchmarks.history import (
    BEGIN,
    COLUMNS,
    END,
    Line,
    append,
    curves,
    draw,
    lines_of,
    markdown,
    newest,
    read,
    renewed,
)
from benchmarks.running import FAILED, command_of, points_of, rows_of, run_entry, wanted
from tests.conftest import REPOSITORY

WRITES = """
import json, sys
out = sys.argv[sys.argv.index("--out") + 1]
json.dump(json.loads(sys.argv[1]), open(out, "w"))
"""
WHERE = {"cpu": "a processor", "cores": 2}


def entry(report: Any, *metrics: Metric, name: str = "fake", then: str = "", **more: Any) -> Entry:
    """An entry that writes a report and then does as told."""
    return Entry(name, "a fake", ("-c", WRITES + then, json.dumps(report)), metrics, **more)


SPEED = Metric("speed", ("a", "per_s"), "1/s", least=10, timed=True)
MEMORY = Metric("memory", ("sizes", 1, "mb"), "MB", most=500)


def line(metric: str, value: str = "1", **changed: str) -> Line:
    fields = dict.fromkeys(COLUMNS, "") | {"date": "2026-01-01T00:00:00Z", "entry": "e"}
    return Line(**fields | {"metric": metric, "value": value} | changed)


def test_a_figure_is_found_at_its_place() -> None:
    report = {"a": {"per_s": 3}, "sizes": [{"mb": 1}, {"mb": 2}]}
    assert at(report, SPEED.where) == 3
    assert at(report, MEMORY.where) == 2


@pytest.mark.parametrize("where", [("b",), ("a", "per_s", "x"), ("sizes", 5), ("sizes", "mb")])
def test_a_place_with_nothing_is_named(where: tuple[str | int, ...]) -> None:
    with pytest.raises(KeyError, match="/".join(map(str, where))):
        at({"a": {"per_s": 3}, "sizes": []}, where)


@pytest.mark.parametrize(
    ("least", "most", "value", "holds"),
    [(10, None, 10, True), (10, None, 9.9, False), (None, 5, 5, True), (None, 5, 5.1, False),
     (0, 0, 0, True), (0, 0, 1, False), (None, None, 1e9, True), (None, None, math.nan, False)],
)  # fmt: skip
def test_bounds_are_held_to_their_very_value(
    least: float | None, most: float | None, value: float, holds: bool
) -> None:
    assert held(Metric("m", ("m",), least=least, most=most), value) is holds


def test_bounds_are_written_as_people_read_them() -> None:
    assert [bound_of(Metric("m", ("m",), least=low, most=high)) for low, high in
            [(20_000, None), (None, 1.5), (1, 2), (0, 0), (None, None)]] == [
        ">= 20,000", "<= 1.5", ">= 1, <= 2", "= 0", ""]  # fmt: skip


def test_an_entry_runs_in_a_process_and_its_figures_are_judged_and_kept(tmp_path: Path) -> None:
    report = {"a": {"per_s": 12.5}, "sizes": [{"mb": 1}, {"mb": 501}]}
    rows = run_entry(entry(report, SPEED, MEMORY, then="print('said')"), tmp_path)
    assert [(row.metric, row.value, row.held) for row in rows] == [
        ("speed (1/s)", 12.5, True), ("memory (MB)", 501, False)]  # fmt: skip
    assert json.loads((tmp_path / "fake.json").read_text()) == report
    assert "said" in (tmp_path / "fake.log").read_text()


def test_an_entry_that_crashes_is_a_row_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "fake.json").write_text('{"a": {"per_s": 99}}')  # of an older run
    (row,) = run_entry(Entry("fake", "", ("-c", "raise OSError('no disk')"), (SPEED,)), tmp_path)
    assert (row.metric, row.held) == (FAILED, False)
    assert "no disk" in row.note


def test_an_entry_that_is_killed_after_it_wrote_has_failed(tmp_path: Path) -> None:
    then = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (row,) = run_entry(entry({"a": {"per_s": 99}}, SPEED, then=then), tmp_path)
    assert (row.metric, row.held) == (FAILED, False)
    assert "exit code -9" in row.note
    assert (tmp_path / "fake.json").exists()


def test_an_entry_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess as s; p = s.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    (row,) = run_entry(Entry("fake", "", ("-c", child), (SPEED,), limit_s=8), tmp_path)
    assert "did not end within 8 s" in row.note
    for pid in (tmp_path / "fake.log").read_text().split():  # none where it did not come so far in time
        ends = time.monotonic() + 60
        while running(Path(f"/proc/{pid}/stat")):
            assert time.monotonic() < ends, "its child still runs"
            time.sleep(0.1)


def running(stat: Path) -> bool:
    """Whether a process is there, and not merely one that nobody has cleared away."""
    try:
        return " Z " not in stat.read_text()
    except OSError:
        return False


def test_a_figure_that_is_not_there_is_missed(tmp_path: Path) -> None:
    (row,) = run_entry(entry({"a": {"per_s": None}}, SPEED), tmp_path)
    assert (row.value, row.held) == (None, False)
    assert "a/per_s" in row.note


def test_a_bound_that_only_the_entry_knows_is_not_lost(tmp_path: Path) -> None:
    then = "print('MISS a bound of its own'); sys.exit(1)"
    rows = run_entry(entry({"a": {"per_s": 99}}, SPEED, then=then), tmp_path)
    assert [row.held for row in rows] == [True, False]
    assert "a bound of its own" in rows[-1].note


def test_small_sizes_are_not_held_to_bounds(tmp_path: Path) -> None:
    then = "assert sys.argv[2] == '--small'; sys.exit(1)"
    rows = run_entry(entry({"a": {"per_s": 1}}, SPEED, then=then, quick=("--small",)), tmp_path, quick=True)
    assert [(row.value, row.bound, row.held) for row in rows] == [(1, "", None)]


def test_a_folder_takes_its_place_in_the_command(tmp_path: Path) -> None:
    given = Entry("fake", "", ("-m", "x", DATA), ())
    assert command_of(given, Path("o"), tmp_path, quick=False)[1:] == ["-m", "x", str(tmp_path), "--out", "o"]


CURVE = Points(("sizes",), "votes", {"s": "seconds"}, size="rows")


@pytest.mark.parametrize(
    "report",
    [
        {"sizes": [{"rows": 1000, "s": 2}, {"rows": 10, "s": 1}]},
        {"sizes": {"1000": {"s": 2}, "10": {"s": 1}}},
    ],
)
def test_a_curve_is_read_from_a_list_or_a_table(report: dict[str, Any]) -> None:
    assert points_of(CURVE, report) == [(10, {"seconds": 1}), (1000, {"seconds": 2})]
    rows = rows_of(Entry("e", "", (), (), CURVE), report)
    assert [row.metric for row in rows] == ["seconds @ 10 votes", "seconds @ 1,000 votes"]


def test_a_curve_that_lacks_a_figure_is_a_failure() -> None:
    (row,) = rows_of(Entry("e", "", (), (), CURVE), {"sizes": [{"rows": 1}]})
    assert (row.metric, row.held) == (FAILED, False)


def test_what_needs_a_folder_runs_only_with_one(tmp_path: Path) -> None:
    plain, needy = Entry("plain", "", (), ()), Entry("needy", "", (DATA,), ())
    assert wanted([plain, needy], [], {}) == [plain]
    assert wanted([plain, needy], [], {"needy": tmp_path}) == [plain, needy]
    with pytest.raises(ValueError, match="needy=FOLDER"):
        wanted([plain, needy], ["needy"], {})
    with pytest.raises(ValueError, match="no entry other"):
        wanted([plain, needy], ["other"], {})


def test_the_command_goes_on_after_a_failure_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        Entry("broken", "", ("-c", "raise OSError('no disk')"), (SPEED,)),
        entry({"a": {"per_s": 12}}, SPEED, name="sound"),
    ]
    history = tmp_path / "h.csv"
    options = ["--keep", str(tmp_path / "kept"), "--history", str(history)]
    assert main(options, entries) == 1
    said = capsys.readouterr().out
    assert "MISS broken: failed" in said
    assert "ok   sound: speed (1/s) 12  (bound: >= 10)" in said
    assert [(row.entry, row.metric, row.value, row.bound, row.held) for row in read(history)] == [
        ("broken", FAILED, "", "", "no"), ("sound", "speed (1/s)", "12", ">= 10", "yes")]  # fmt: skip
    kept = json.loads((tmp_path / "kept" / "environment.json").read_text())
    assert kept.keys() >= {"cpu", "cores", "python", "packages", "load_before", "commit"}
    assert main([*options, "--only", "sound"], entries) == 0
    assert len(read(history)) == 3


@pytest.mark.parametrize(
    "options",
    [["--quick", "--history"], ["--only", "other"], ["--data", "sound"], ["--data", "sound=/no/such"]],
)
def test_a_wrong_command_is_told_before_anything_runs(options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(options, [entry({}, name="sound", then="raise OSError")])
    assert stopped.value.code == 2


def test_the_list_tells_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "requests at 50 ms (1/s) >= 850  [time]" in capsys.readouterr().out


def test_a_history_is_appended_to_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    rows = rows_of(entry({}, SPEED, name="x"), {"a": {"per_s": 1234.5678}})
    lines = lines_of(rows, WHERE, "abc123")
    append(path, lines)
    append(path, lines)
    assert read(path) == [*lines, *lines]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert (lines[0].value, lines[0].cpu, lines[0].commit) == ("1234.57", "a processor", "abc123")


def test_another_table_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="its columns must be"):
        append(path, [line("m")])


def test_the_newest_run_of_each_entry_counts() -> None:
    lines = [
        line("gone", date="2026-01-01T00:00:00Z"),
        line("kept", date="2026-01-01T00:00:00Z"),
        line("other", date="2026-01-01T00:00:00Z", entry="f"),
        line("kept", "2", date="2026-02-01T00:00:00Z"),
    ]
    assert [(each.entry, each.metric, each.value) for each in newest(lines)] == [
        ("e", "kept", "2"), ("f", "other", "1")]  # fmt: skip


def test_the_table_shows_figures_curves_and_where_it_was() -> None:
    lines = [
        line("speed (1/s)", "1013.4", bound=">= 850", held="yes", cpu="cpu", cores="2", commit="abc"),
        line("memory (MB)", "0.12345", bound="<= 0.1", held="no", cpu="cpu", cores="2", commit="abc"),
        line("seconds @ 1,000 votes", "3", cpu="cpu", cores="2", commit="abc"),
        line("seconds @ 10 votes", "1", cpu="cpu", cores="2", commit="abc"),
    ]
    assert curves(lines) == {("e", "votes"): {1000: {"seconds": "3"}, 10: {"seconds": "1"}}}
    shown = markdown(lines).splitlines()
    assert "| e | speed (1/s) | 1,013 | >= 850 | yes |" in shown
    assert "| e | memory (MB) | 0.123 | <= 0.1 | **no** |" in shown
    assert shown.index("| 10 | 1 |") == shown.index("| 1,000 | 3 |") - 1
    assert "| e | 2026-01-01 | abc | | cpu, 2 cores |" in shown


def test_figures_stand_between_the_marks_of_a_page() -> None:
    page = renewed(f"# Title\n{BEGIN}\nold\n{END}\nrest\n", "new")
    assert "old" not in page
    assert renewed(page, "new") == page
    assert page.startswith("# Title\n")
    assert page.endswith("\nrest\n")
    with pytest.raises(ValueError, match="no marks"):
        renewed("# Title", "new")


def test_curves_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    lines = [line(f"seconds @ {size} votes", str(size)) for size in (10, 100)]
    assert draw(lines, tmp_path / "1.svg")
    assert draw(lines, tmp_path / "2.svg")
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    assert not draw([line("seconds", "1")], tmp_path / "3.svg")


def test_the_page_shows_the_newest_figures_of_the_history(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text((REPOSITORY / "docs" / "performance.md").read_text("utf-8"), "utf-8")
    put_table(REPOSITORY / HISTORY, page)
    assert page.read_text("utf-8") == (REPOSITORY / "docs" / "performance.md").read_text("utf-8")


def test_entries_have_names_of_their_own_and_modules_that_are_there() -> None:
    assert len({each.name for each in ENTRIES}) == len(ENTRIES)
    for each in ENTRIES:
        path = REPOSITORY / each.command[1].replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        assert len({metric.label for metric in each.metrics}) == len(each.metrics)


def built(pairs: int, seconds: float) -> dict[str, Any]:
    return {"pairs": pairs, "seconds": seconds, "ms_per_pair": 1000 * seconds / pairs, "peak_mb": 700.0}


def test_growth_is_that_of_the_largest_beside_the_smallest() -> None:
    found = summary([built(1000, 30), built(3000, 80), built(10_000, 330) | {"peak_mb": 1400.0}])
    assert found["per_pair_ratio"] == pytest.approx(1.1)
    assert found["largest"]["pairs"] == 10_000
    assert found["hours"] == pytest.approx(330 / 3600)
    assert found["memory_ratio"] == 2


def test_stages_tell_their_own_seconds_in_the_order_they_were_done(tmp_path: Path) -> None:
    folder = tmp_path / ".holisafe" / "stages"
    folder.mkdir(parents=True)
    for name, seconds, done in (("audit", 2.5, 1_000_020), ("curate", 1.5, 1_000_010)):
        (folder / f"{name}.json").write_text(f'{{"seconds": {seconds}}}')
        os.utime(folder / f"{name}.json", (done, done))
    assert list(stages_of(tmp_path).items()) == [("curate", (1.5, 1_000_010)), ("audit", (2.5, 1_000_020))]


def test_dedup_is_held_beside_the_best_peer() -> None:
    peers = {
        "ours": {"images_per_s": 900, "recall": 0.97},
        "fast": {"images_per_s": 600, "recall": 0.4},
        "thorough": {"images_per_s": 300, "recall": 0.9},
        "broken": {"failed": "no wheel"},
    }
    assert beside(peers) == {"speed_ratio": 1.5, "recall_over": pytest.approx(0.07), "peers": 2}
    assert beside({"ours": peers["ours"], "broken": peers["broken"]}) == {}
