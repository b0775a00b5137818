"""The call cache in a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.engine import CallCacheError, Engine, open_cache
from tests.cache_behaviour import RECORD, CacheBehaviour, numbered
from tests.postgres import PostgresServer
from tests.scripted import scripted
from tests.unit.test_engine_sending import items

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


def test_another_version_is_refused(url: str) -> None:
    import psycopg

    with open_cache(url):
        pass
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE holisafe_meta SET version = 99")
    with pytest.raises(CallCacheError, match="version 99"):
        open_cache(url)
