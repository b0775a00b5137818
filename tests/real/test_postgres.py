"""The call cache in a real PostgreSQL server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.engine import CallCacheError, Engine, open_cache
from tests.cache_behaviour import RECORD, CacheBehaviour, numbered
from tests.postgres import PostgresServer
from tests.scripted import items, scripted

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    running = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield running
    running.stop()


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty database."""
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS calls WITH (FORCE)")
        connection.execute("CREATE DATABASE calls")
    return server.url.removesuffix("/postgres") + "/calls"


class TestPostgres(CacheBehaviour):
    @pytest.fixture
    def place(self, url: str) -> str:
        return url


def test_the_engine_asks_once_whoever_shares_the_database(url: str) -> None:
    with scripted() as served, open_cache(url) as here, open_cache(url) as there:
        Engine(here, served.endpoint()).ask_all(items(served, 100), stage="t")
        again = Engine(there, served.endpoint()).ask_all(items(served, 120), stage="t")
        assert [a.cached for a in again] == [True] * 100 + [False] * 20
        assert served.stats()["repeated"] == 0


def test_what_was_answered_survives_the_death_of_the_server(server: PostgresServer, url: str) -> None:
    with open_cache(url) as cache:
        for future in [cache.put(record) for record in numbered(100)]:
            future.result()
        server.kill()
        with pytest.raises(CallCacheError, match=r"could not be stored .* run again"):
            cache.put(RECORD).result()
        with pytest.raises(CallCacheError, match="not usable"):
            cache.get("0001")
        server.start()
        assert cache.count() == 100
        stored = cache.put(RECORD).result()
        assert cache.get("k") == stored


def test_a_wrong_password_is_told_without_it(server: PostgresServer) -> None:
    wrong = server.url.replace(server.password, "canary-password-17")
    with pytest.raises(CallCacheError, match="not usable as a call cache") as raised:
        open_cache(wrong)
    assert "canary-password-17" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:canary@127.0.0.1:1/db",
        "postgresql://u:canary/17@127.0.0.1:1/db",
        "postgresql://u:17/canary@127.0.0.1:1/db",
        "postgresql://u:17@canary@127.0.0.1:1/db",
        "postgresql://u:canary%zz@127.0.0.1:1/db",
        "postgresql://u:%63anary@127.0.0.1:1/db",
        "postgresql://u:canary#17@127.0.0.1:1/db",
        "postgresql://u:canary?17@127.0.0.1:1/db",
        "postgresql://u:canary@[::1/db",
        "postgresql://u:canary@127.0.0.1:port/db",
        "postgresql://127.0.0.1:1/db?user=u&password=canary",
        "postgresql://127.0.0.1:1/db?user=u&password=canary%zz",
        "postgresql://127.0.0.1:1/db?user=u&passwrod=canary",
        "postgres://u:canary@127.0.0.1:1,127.0.0.1:2/db",
    ],
)
def test_no_url_shows_its_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(CallCacheError) as raised:
        open_cache(url)
    assert "canary" not in str(raised.value) + repr(raised.value) + caplog.text
    assert "17" not in str(raised.value), "a part of the password"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_an_open_cache_shows_no_password(server: PostgresServer, url: str) -> None:
    with open_cache(url) as cache:
        assert server.password not in repr(cache) + str(cache) + cache.name
        assert cache.name == f"postgresql://127.0.0.1:{server.port}/calls"


def test_another_version_is_refused_and_left_as_it_is(url: str) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE holisafe_meta AS SELECT 99 AS version")
    with pytest.raises(CallCacheError, match=r"/calls: call cache version 99.*paid answers"):
        open_cache(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('calls')").fetchone() == (None,)


def test_a_database_of_version_3_keeps_its_answers_and_gets_its_books(url: str) -> None:
    import psycopg

    with open_cache(url) as cache:
        known = cache.put(RECORD).result()
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE spent")
        connection.execute("UPDATE holisafe_meta SET version = 3")
    with open_cache(url) as cache:
        assert cache.get("k") == known
        assert [(used.calls, used.cost_usd) for used in cache.usage()] == [(1, 0.5)]
    with open_cache(url) as cache:
        cache.put(replace(RECORD, key="new")).result()
        assert [used.cost_usd for used in cache.usage()] == [1.0], "filled once"


def test_another_programs_tables_are_refused(url: str) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE calls (theirs INTEGER)")
    with pytest.raises(CallCacheError, match=r'not usable as a call cache.*"calls" already exists'):
        open_cache(url)


def test_an_answer_that_another_machine_deletes_meanwhile_is_stored_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    deleted: list[bool] = []
    plain = psycopg.Cursor.executemany

    def executemany(cursor: psycopg.Cursor[object], *arguments: object, **more: object) -> None:
        plain(cursor, *arguments, **more)  # type: ignore[arg-type]
        if not deleted:
            deleted.append(True)
            there.delete(["k"])

    with open_cache(url) as here, open_cache(url) as there:
        there.put(RECORD).result()
        monkeypatch.setattr(psycopg.Cursor, "executemany", executemany)
        assert here.put(RECORD).result().key == "k"
        assert deleted
        assert here.keys() == ["k"]
