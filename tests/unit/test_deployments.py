"""What can be said of deployments without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.states import Failed

from flows.build import STEPS
from flows.deploy import KINDS, Plan, deploy
from flows.stage import another_try_may_help, slug
from pipeline.engine import BudgetError, EndpointError
from pipeline.runner import WorkspaceBusyError
from pipeline.stages import STAGES
from schemas.errors import InputError
from tests.conftest import holisafe

NO_SERVER = {"PREFECT_API_URL": "", "PREFECT_HOME": "prefect"}
PLAN = {"pool": "p", "nightly": "0 2 * * *", "weekly": "0 12 * * 0", "timezone": "UTC"}


def test_a_server_that_is_not_named_is_told_with_the_mend(workspace: Path) -> None:
    done = holisafe(workspace, "deploy", check=False, **NO_SERVER)
    assert done.returncode == 2
    assert "no Prefect server is named" in done.stderr
    assert "PREFECT_API_URL" in done.stderr


def test_a_server_that_does_not_answer_is_told_with_the_mend(workspace: Path) -> None:
    there = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = holisafe(workspace, "deploy", check=False, **NO_SERVER | there)
    assert done.returncode == 2
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in done.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"nightly": "at night"}, "--nightly: 'at night'"),
        ({"weekly": "61 * * * *"}, "--weekly: '61 "),
        ({"timezone": "Europe/Nowhere"}, "--timezone: 'Europe/Nowhere'"),
    ],
)
def test_an_hour_that_is_none_is_refused_before_the_server_is_asked(
    tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError) as refused:
        deploy(tmp_path, Plan(**PLAN | changed))
    assert str(refused.value).startswith(told)


def test_what_another_try_may_mend() -> None:
    def again(error: Exception) -> bool:
        return another_try_may_help(None, None, Failed(data=error))

    assert all(map(again, [EndpointError("down"), OSError("full"), WorkspaceBusyError("busy")]))
    assert not any(map(again, [InputError("wrong"), BudgetError("spent")]))


def test_tasks_are_called_as_stages_are_and_deployments_name_what_there_is() -> None:
    assert [step.name for step in STEPS] == list(STAGES)
    assert {step.task_run_name for step in STEPS} == set(STAGES)
    for kind in KINDS:
        module, name = kind.entrypoint.rsplit(".", 1)
        assert kind.flow.fn.__module__ == module
        assert kind.flow.fn.__name__ == name


def test_names_at_prefect_are_letters_digits_and_dashes() -> None:
    assert [slug(Path(name)) for name in ("My Data_Set", "/a/b.c/", "/")] == [
        "my-data-set",
        "b-c",
        "workspace",
    ]
