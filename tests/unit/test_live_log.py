"""DVCLive's files of a training that was cut off and went on."""

from __future__ import annotations

import json
from pathlib import Path

from flows.live_log import LiveLog


def lines(folder: Path, name: str) -> list[list[str]]:
    text = (folder / "plots" / "metrics" / f"{name}.tsv").read_text()
    return [line.split("\t") for line in text.splitlines()]


def test_lines_of_steps_that_no_checkpoint_holds_are_taken_out(tmp_path: Path) -> None:
    cut = LiveLog(tmp_path)
    cut.begin(0)
    for step in (1, 2, 3, 4):
        cut.log(step, {"loss": 9.0 - step, "rate": 0.5})
    with (tmp_path / "plots" / "metrics" / "loss.tsv").open("a") as file:
        file.write("5")  # killed in the middle of a line
    (tmp_path / "metrics.json").write_text('{"loss": 5')
    resumed = LiveLog(tmp_path)
    resumed.begin(2)
    for step in (3, 4, 5):
        resumed.log(step, {"loss": 1.0 + step, "rate": 0.25})
    resumed.end()
    told = [["1", "8.0"], ["2", "7.0"], ["3", "4.0"], ["4", "5.0"], ["5", "6.0"]]
    assert lines(tmp_path, "loss") == [["step", "loss"], *told]
    assert [step for step, _ in lines(tmp_path, "rate")] == ["step", "1", "2", "3", "4", "5"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 6.0, "rate": 0.25, "step": 5}
    done = LiveLog(tmp_path)  # all steps were made
    done.begin(5)
    done.end()
    assert lines(tmp_path, "loss") == [["step", "loss"], *told]
    anew = LiveLog(tmp_path)  # the checkpoint was deleted
    anew.begin(0)
    anew.log(1, {"loss": 3.0})
    anew.end()
    assert lines(tmp_path, "loss") == [["step", "loss"], ["1", "3.0"]]
