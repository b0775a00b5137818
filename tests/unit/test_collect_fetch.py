"""Fetching beside a real server with faults: nothing private, nothing endless, nothing twice."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collect.address import is_public, literal
from pipeline.collect.fetch import Fetcher, _retry_after
from pipeline.collect.fetched import FetchedStore
from pipeline.collect.sources import Problem, Received
from pipeline.store import Failures
from schemas.params import Fetch, load_params
from tests.conftest import REPOSITORY
from tests.web import image, site

HOSTS = dict.fromkeys(("site.test", "other.test", "slow.test"), "127.0.0.1")
MAX_BYTES = 1_000_000


def params(**changes: Any) -> Fetch:
    quick = {"delay_s": 0.0, "pause_s": 0.01, "total_s": 1.0, "at_once_per_host": 4}
    return Fetch.model_validate(load_params(REPOSITORY).collect.fetch.model_dump() | quick | changes)


@contextmanager
def fetcher(
    tmp_path: Path, refuse: Callable[[bytes], str | None] = lambda _: None, **changes: Any
) -> Iterator[Fetcher]:
    with (
        FetchedStore(tmp_path / "fetched") as store,
        Fetcher(params(**changes), store, MAX_BYTES, refuse, HOSTS) as opened,
    ):
        yield opened


def reasons(got: Sequence[Received | Problem]) -> list[str]:
    return [g.reason if isinstance(g, Problem) else "ok" for g in got]


def test_pictures_come_in_order_each_fetched_once_ever(tmp_path: Path) -> None:
    with site() as served:
        urls = [served.url(f"/picture/{n}.png") for n in (3, 1, 3, 2)]
        with fetcher(tmp_path) as first:
            got = list(first.fetch(urls))
        assert [g.data for g in got if isinstance(g, Received)] == [image(n) for n in (3, 1, 3, 2)]
        with fetcher(tmp_path) as second:
            again = list(second.fetch(urls))
        assert again == got, "also the time is that of the first fetch"
        assert all(n == 1 for path, n in served.asked.items())
        assert served.agents == {params().user_agent}


def test_bytes_that_were_lost_are_fetched_again(tmp_path: Path) -> None:
    with site() as served:
        url = served.url("/picture/1.png")
        with fetcher(tmp_path) as first:
            list(first.fetch([url]))
        (blob,) = (tmp_path / "fetched" / "blobs").rglob("??/*")
        blob.write_bytes(b"half a fi")
        with fetcher(tmp_path) as second:
            (got,) = second.fetch([url])
        assert isinstance(got, Received)
        assert got.data == image(1)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/to/?u=" + quote("http://127.0.0.1:1/x.png"), "address refused"),
        ("/to/?u=" + quote("http://localhost:1/x.png"), "address refused"),
        ("/to/?u=" + quote("http://127.1:1/x.png"), "address refused"),
        ("/to/?u=" + quote("http://2130706433/x.png"), "address refused"),
        ("/to/?u=" + quote("http://0x7f.1/x.png"), "address refused"),
        ("/to/?u=" + quote("http://[::ffff:127.0.0.1]/x.png"), "address refused"),
        ("/to/?u=" + quote("http://[::1]/x.png"), "address refused"),
        ("/to/?u=" + quote("http://169.254.169.254/latest/meta-data"), "address refused"),
        ("/to/?u=" + quote("file:///etc/passwd"), "not a URL"),
        ("/to/?u=" + quote("http://user:word@site.test/x.png"), "not a URL"),
        ("/loop/", "too many redirects"),
        ("/endless/", "timed out"),
        ("/silent/", "timed out"),
        ("/bomb/", "too large"),
        ("/huge/", "too large"),
        ("/odd/", "bad answer"),
        ("/short/", "incomplete body"),
        ("/page/", "not an image"),
        ("/missing/", "HTTP 404"),
        ("/noai/noai", "noai"),
        ("/noai/NoImageAI", "noai"),
        ("/noai/otherbot: noai", "noai"),
        ("/noai/noindex", "ok"),
        ("/zipped/", "ok"),
        ("/members/", "ok"),
        ("/to/?u=" + quote("http://xn--a.test/x.png"), "not a URL"),
        ("/later/Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "HTTP 503"),
        ("/busy/", "ok"),
        ("/to/?u=" + quote("/picture/4.png"), "ok"),
    ],
)
def test_every_fault_has_its_reason(tmp_path: Path, path: str, reason: str) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        assert reasons(list(opened.fetch([served.url(path)]))) == [reason]
        kept = list((tmp_path / "fetched" / "blobs").rglob("??/*"))
        assert len(kept) == (reason == "ok"), "nothing of what failed is stored"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://a.example/x.png",
        "http://",
        "http://[::1",
        "http://a.example:99999/",
        "\0",
        "http://ex ample/",
    ],
)
def test_what_is_no_url_is_told(tmp_path: Path, url: str) -> None:
    with fetcher(tmp_path) as opened:
        assert reasons(list(opened.fetch([url]))) == ["not a URL"]


def test_a_private_address_is_fetched_from_where_params_allow_it(tmp_path: Path) -> None:
    with site() as served:
        url = served.url("/picture/1.png", "127.0.0.1")
        with fetcher(tmp_path) as careful:
            assert reasons(list(careful.fetch([url]))) == ["address refused"]
        with fetcher(tmp_path, allow_private=True) as open_to_all:
            assert reasons(list(open_to_all.fetch([url]))) == ["ok"]


@pytest.mark.parametrize(
    ("robots", "expected"),
    [
        ("User-agent: *\nDisallow: /private/", ["ok", "refused by robots.txt"]),
        (
            "User-agent: holisafe-pipeline\nDisallow: /\n\nUser-agent: *\nAllow: /",
            ["refused by robots.txt"] * 2,
        ),
        ("User-agent: *\nCrawl-delay: 86400", ["crawl-delay too long"] * 2),
        (403, ["ok", "ok"]),
        (500, ["robots.txt unreachable"] * 2),
        ("\0\xff not a robots file", ["ok", "ok"]),
    ],
)
def test_robots_txt_is_done_as_it_says(tmp_path: Path, robots: str | int, expected: list[str]) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        served.robots = robots
        got = opened.fetch([served.url("/picture/1.png"), served.url("/private/2.png")])
        assert reasons(list(got)) == expected


def test_robots_txt_of_a_redirects_target_counts_too(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        served.robots = "User-agent: *\nDisallow: /private/"
        target = quote(served.url("/private/1.png", "other.test"))
        assert reasons(list(opened.fetch([served.url(f"/to/?u={target}")]))) == ["refused by robots.txt"]
        assert "other.test/robots.txt" in served.asked


def test_a_robots_txt_that_begins_with_a_byte_order_mark_counts(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        served.robots = "\ufeffUser-agent: *\nDisallow: /"
        assert reasons(list(opened.fetch([served.url("/picture/1.png")]))) == ["refused by robots.txt"]


def test_a_compressed_picture_in_two_parts_is_whole(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        (got,) = opened.fetch([served.url("/members/")])
        assert isinstance(got, Received)
        assert got.data == image(5)


@contextmanager
def raw(answer: bytes) -> Iterator[str]:
    """A server that gives the very bytes, whatever it is asked but for robots.txt."""

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                missing = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                peer.sendall(missing if b"robots.txt" in peer.recv(65536) else answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://site.test:{listening.getsockname()[1]}/x.png"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (b'Content-Type: image/png; name="\xe9.png"', image(1), "ok"),
        (b'Content-Type: text/html; name="\xe9.png"', b"<html>", "not an image"),
        (b"X-Robots-Tag: noai, \xe9", image(1), "noai"),
    ],
)
def test_a_header_that_is_not_utf_8_costs_nothing_else(
    tmp_path: Path, headers: bytes, body: bytes, reason: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n\r\n" % (len(body), headers)
    with raw(head + body) as url, fetcher(tmp_path) as opened:
        (got,) = opened.fetch([url])
    assert reasons([got]) == [reason]
    if isinstance(got, Problem):
        failures = Failures("collect")
        failures.add("", url, got.reason, got.detail)
        failures.write(tmp_path)


def test_the_delay_of_a_host_holds_when_all_places_are_taken(tmp_path: Path) -> None:
    with site() as slow, site() as other, fetcher(tmp_path, at_once=1, delay_s=0.2, total_s=5.0) as opened:
        slow.pause = 0.5
        urls = [slow.url("/picture/0.png", "slow.test"), *(other.url(f"/picture/{n}.png") for n in range(4))]
        assert reasons(list(opened.fetch(urls))) == ["ok"] * 5
        gaps = [b - a for a, b in zip(other.times, other.times[1:], strict=False)]
        assert min(gaps) >= 0.19


def test_no_more_requests_than_allowed_are_under_way(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path, at_once=2, at_once_per_host=9, total_s=5.0) as opened:
        served.pause = 0.1
        list(opened.fetch([served.url(f"/picture/{n}.png") for n in range(8)]))
        assert served.most_at_once == 2


def test_a_redirects_target_that_asks_for_time_gets_it(tmp_path: Path) -> None:
    with site() as first, site() as target, fetcher(tmp_path, total_s=5.0) as opened:
        to = quote(target.url("/wait/", "other.test"))
        began = time.monotonic()
        urls = [first.url(f"/to/?u={to}"), first.url("/picture/1.png")]
        assert reasons(list(opened.fetch(urls))) == ["ok", "ok"]
        assert target.times[1] - target.times[0] >= 0.95
        assert first.times[1] - began < 0.9, "the host that redirected is not made to wait"


@pytest.mark.parametrize("zone", [" GMT", ""])
def test_retry_after_may_be_a_date(zone: str) -> None:
    at = time.gmtime(time.time() + 30)
    form = "%a, %d %b %Y %H:%M:%S" if zone else "%a %b %d %H:%M:%S %Y"
    assert 28 <= (_retry_after(time.strftime(form, at) + zone) or 0) <= 31


def test_only_the_beginning_of_a_long_robots_txt_is_read(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        served.robots = "User-agent: *\n" + "#" * 600_000 + "\nDisallow: /"
        assert reasons(list(opened.fetch([served.url("/picture/1.png")]))) == ["ok"]


def test_delay_and_crawl_delay_hold(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path, delay_s=0.05) as opened:
        served.robots = "User-agent: *\nCrawl-delay: 0.2"
        assert reasons(list(opened.fetch([served.url(f"/picture/{n}.png") for n in range(4)]))) == ["ok"] * 4
        gaps = [b - a for a, b in zip(served.times, served.times[1:], strict=False)]
        assert min(gaps) >= 0.19


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path) as opened:
        started = time.monotonic()
        assert reasons(list(opened.fetch([served.url("/wait/")]))) == ["ok"]
        assert time.monotonic() - started >= 0.95


def test_a_slow_host_holds_up_no_other(tmp_path: Path) -> None:
    with site() as slow, site() as fast, fetcher(tmp_path, at_once_per_host=1, total_s=5.0) as opened:
        slow.pause = 0.5
        urls = [slow.url(f"/picture/{n}.png", "slow.test") for n in range(3)]
        urls += [fast.url(f"/picture/{n}.png") for n in range(20)]
        started = time.monotonic()
        assert reasons(list(opened.fetch(urls))) == ["ok"] * 23
        assert max(fast.times) - min(fast.times) < 1.0
        assert time.monotonic() - started >= 1.5


def test_ten_thousand_urls_of_a_dead_port_fail_in_seconds(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        port = taken.getsockname()[1]
        started = time.monotonic()
        with fetcher(tmp_path, delay_s=0.5) as opened:
            got = list(opened.fetch([f"http://site.test:{port}/{n}.png" for n in range(10_000)]))
    assert len(got) == 10_000
    assert set(reasons(got)) <= {"cannot connect", "host given up"}
    assert time.monotonic() - started < 15


def test_a_host_that_dies_is_given_up_and_its_other_urls_fail_at_once(tmp_path: Path) -> None:
    with site() as served, fetcher(tmp_path, total_s=0.3, retries=0) as opened:
        urls = [served.url(f"/silent/{n}") for n in range(40)]
        got = reasons(list(opened.fetch(urls)))
        assert got.count("host given up") >= 30
        assert set(got) == {"timed out", "host given up"}


def test_a_listed_image_is_never_stored_and_stops_the_rest(tmp_path: Path) -> None:
    listed = hashlib.sha256(image(0)).hexdigest()

    def refuse(data: bytes) -> str | None:
        return "sha256" if hashlib.sha256(data).hexdigest() == listed else None

    with site() as served, fetcher(tmp_path, refuse, at_once_per_host=1) as opened:
        got = reasons(list(opened.fetch([served.url(f"/picture/{n}.png") for n in range(30)])))
        assert got[0] == "on a block list"
        assert got[-1] == "source stopped"
        assert not any(listed[2:] == p.name for p in (tmp_path / "fetched").rglob("*"))


@given(st.ip_addresses(v=4))
def test_wrapped_addresses_are_judged_as_what_they_wrap(address: Any) -> None:
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(wrapped) == is_public(str(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",  # noqa: S104
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "2001:db8::1", "2002:7f00:1::", "::ffff:10.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_what_is_public() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")
    assert literal("example.org") is None
    for odd in ("127.1", "2130706433", "0177.0.0.1", "1:2", "fe80::1%"):
        with pytest.raises(ValueError, match="no plain address"):
            literal(odd)
