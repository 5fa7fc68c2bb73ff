"""Each case of `manage.py bench` in a tiny form: its facts and the books, never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError

from lava.bench import called, load, machine, scratch, screens, upstream
from lava.management.commands import audit
from meters.gateway import readers
from tests.product import ROOT

pytestmark = pytest.mark.xdist_group("bench")

TINY = ("--connections", "20", "--clients", "4")


def bench(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Run a case; gives its facts and what it printed."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the bench reads /proc")
    facts = folder / "facts.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "bench", *words, *TINY, "--json", str(facts)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(facts.read_text()), done.stdout


@pytest.mark.slow
def test_stored_requests_are_written_so_that_the_audit_holds(tmp_path: Path) -> None:
    words = ("stored", "--requests", "3000", "--rounds", "1", "--seconds", "1")
    facts, printed = bench(tmp_path, *words)
    (books,) = facts["books"]
    posted = sum(row["acknowledged"] for row in facts["sides"]["stored"]["rounds"])
    assert books["rows"] == 3000 + posted and books["broken"] == []
    assert books["charged"] == books["drawn"]
    assert facts["correct"] and facts["refused"] == 0
    assert set(facts["asked_ms"]) >= {"usage of 90 days", "the console's first page"}
    assert all(taken > 0 for taken in facts["asked_ms"].values())
    assert "| 3,000 |" in printed


@pytest.mark.slow
def test_console_opens_every_kind_of_page(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "console", "--requests", "300", "--rounds", "1")
    assert set(facts["pages"]) >= {"/console/", "/console/margin", "/console/connections/*"}
    assert len(facts["pages"]) > 60
    assert all(page["queries"] <= screens.MOST_QUERIES for page in facts["pages"].values())
    assert facts["requests"] > 300 and facts["correct"]
    assert "| /console/" in printed


def test_requests_runs_three_sides_and_the_books_hold(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "requests", "--rounds", "1", "--seconds", "1")
    assert set(facts["sides"]) == {"floor", "product", "naive"}
    for side in facts["sides"].values():
        assert side["median"]["per_s"] > 0
        assert side["median"]["database_us"] > 0
        assert side["rounds"][0]["acknowledged"] > 0
        assert side["says"] in printed
    assert facts["sides"]["floor"]["median"]["server_us"] == 0
    assert set(facts["ratios"]) == {
        "product_rate_of_floor",
        "product_cpu_of_floor",
        "product_cpu_of_floor_with_clients",
        "product_rate_of_naive",
        "naive_cpu_of_product",
    }
    assert facts["correct"] and facts["refused"] == 0
    (books,) = facts["books"]
    assert books["rows"] == facts["acknowledged"]
    assert books["charged"] == books["drawn"]
    assert books["broken"] == []
    assert facts["machine"]["fsync"] == facts["machine"]["synchronous_commit"] == "on"
    assert facts["machine"]["postgresql"] in printed


def test_the_scratch_folder_is_gone_afterwards(tmp_path: Path, settings: Any) -> None:
    settings.STATE_DIR = str(tmp_path)
    assert scratch.run_apart(["requests", "--help"]) == 0
    assert scratch.run_apart(["no such case"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_batch_is_measured_by_record_beside_copy(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "batch", "--rounds", "1", "--seconds", "3")
    assert facts["correct"] and facts["refused"] == 0, printed
    assert facts["sides"]["copy"]["median"]["per_s"] > 0
    assert facts["sides"]["product"]["median"]["server_us"] > 0
    assert 0 < facts["ratios"]["product_rate_of_copy"] < 1 and "of raw COPY" in printed
    assert facts["books"][0]["rows"] == facts["acknowledged"] >= 1000


@pytest.mark.slow
def test_hot_compares_many_clients_with_one(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "hot", "--rounds", "1", "--seconds", "1")
    assert facts["correct"], printed
    assert set(facts["sides"]) == {"one", "many"}
    assert facts["ratios"]["many_of_one"] > 0
    assert facts["books"][0]["rows"] == facts["acknowledged"] > 0
    assert "| 4 |" in printed


@pytest.mark.slow
def test_gateway_is_measured_beside_the_direct_call_and_the_books_hold(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "gateway", "--rounds", "1", "--seconds", "1")
    assert facts["correct"], printed
    assert set(facts["sides"]) == {"direct", "floor", "ours"}
    for name, side in facts["sides"].items():
        for way in ("load", "one") if name == "floor" else ("load", "one", "stream"):
            assert side[way]["median"]["per_s"] > 0
        assert side["says"] in printed
    ours = facts["sides"]["ours"]["load"]["median"]
    assert ours["server_us"] > 0 and ours["database_us"] > 0
    assert facts["ratios"]["ours_added_p50_ms"] > 0
    assert facts["ratios"]["ours_rate_of_floor"] > 0
    (books,) = facts["books"]
    assert books["rows"] == facts["acknowledged"] > 0 and books["broken"] == []
    assert (books["open_holds"], books["not_completed"], books["flagged"]) == (0, 0, 0)


def test_a_process_that_ends_during_a_look_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 ends during the second look, and is with its parent at the third.
    looks = iter([({1, 2}, 10.0), ({1}, 4.0), ({1}, 12.0)])
    monkeypatch.setattr(machine, "_look", lambda root: next(looks))
    assert machine.spent_us(1) == 12.0


def test_a_folder_without_litellm_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="There is no LiteLLM"):
        called.LiteLLMServer(str(tmp_path), provider=1)


def test_the_stand_in_provider_answers_whole_and_as_a_stream() -> None:
    for raw, kind in ((upstream.WHOLE, ""), (upstream.STREAM, "text/event-stream")):
        assert load.complete(raw) and not load.complete(raw[:-1])
        head, _, body = raw.partition(b"\r\n\r\n")
        assert kind.encode() in head
        reader = readers.Reader(kind)
        text = b"".join(body.split(b"\r\n")[1::2]) if kind else body
        reader.feed(text)
        reader.close()
        assert reader.usage == readers.Usage(input=12, output=64)


def test_a_call_of_the_load_client_carries_its_token() -> None:
    plan = load.Plan(
        port=1, key="", prefix="", targets=["lft_a"], clients=1, fields={"n": 1}, path="/v1/x"
    )
    _, sent = next(load.requests(plan))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x ") and b"Authorization: Bearer lft_a" in head
    assert f"Content-Length: {len(body)}".encode() in head and json.loads(body) == {"n": 1}


@pytest.mark.slow
def test_a_storm_charges_each_id_once(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "storm", "--rounds", "1", "--requests", "100")
    assert facts["correct"], printed
    assert facts["sent"] == 100
    assert 10 < facts["acknowledged"] < 90
    assert (facts["refused"], facts["deadlocks"]) == (0, 0)
    assert facts["books"][0]["rows"] == facts["acknowledged"]


@pytest.mark.slow
def test_enforce_lets_exactly_the_credits_pass(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "enforce", "--requests", "40")
    assert facts["correct"], printed
    assert [draw["connections"] for draw in facts["draws"]] == [16, 64, 200, 16, 64, 200]
    for draw in facts["draws"]:
        assert (draw["passed"], draw["refused"], draw["charged"], draw["hold"]) == (
            30,
            10,
            30,
            True,
        )


@pytest.mark.slow
def test_renewals_are_measured_beside_their_floor_and_charges_meanwhile(tmp_path: Path) -> None:
    facts, printed = bench(
        tmp_path, "renewals", "--rounds", "1", "--seconds", "1", "--subscriptions", "700"
    )
    assert facts["correct"] and facts["once"], printed
    assert facts["renewed"] == facts["subscriptions"] == 700
    assert set(facts["sides"]) == {"floor", "sets", "one"}
    for side in (*facts["sides"].values(), *facts["meanwhile"].values()):
        assert side["median"]["per_s"] > 0
        assert side["says"] in printed
    assert facts["ratios"]["sets_rate_of_one"] > 1
    assert facts["books"][0]["rows"] == facts["acknowledged"] > 0
    assert facts["books"][0]["broken"] == []


@pytest.mark.slow
def test_audit_is_measured_by_rule_and_charges_meanwhile(tmp_path: Path) -> None:
    facts, printed = bench(
        tmp_path, "audit", "--rounds", "1", "--seconds", "1", "--requests", "2000"
    )
    assert facts["correct"], printed
    assert facts["lines"] == 2000 + 2 * 20
    assert set(facts["rules"]) == {rule.name for rule in audit.RULES}
    assert min(facts["seconds"], facts["under_load_s"]) > 0
    assert facts["books"][0]["rows"] > 2000 and facts["books"][0]["broken"] == []


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
    ],
)
def test_the_load_client_reads_an_answer_to_its_end(data: bytes, whole: bool) -> None:
    assert load.complete(data) is whole


def test_the_load_client_says_the_length_of_what_it_sends() -> None:
    plan = load.Plan(
        port=1, key="k", prefix="p-", targets=["con_1"], clients=1, fields={"enforce": True}
    )
    stream = load.requests(plan)
    for _ in range(3):
        name, sent = next(stream)
        head, _, body = sent.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body) == {"request_id": name, "connection_id": "con_1", "enforce": True}


def test_the_load_client_sends_the_same_bytes_again_for_a_repeat() -> None:
    plan = load.Plan(port=1, key="k", prefix="p-", targets=["a", "b"], clients=1, repeats=0.5)
    stream = load.requests(plan)
    seen: dict[str, bytes] = {}
    repeated = 0
    for _ in range(200):
        name, sent = next(stream)
        repeated += name in seen
        assert seen.setdefault(name, sent) == sent
    assert 50 < repeated < 150


def test_the_naive_design_refuses_to_start_on_real_data() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        env={"DJANGO_SETTINGS_MODULE": "lava.bench.naive.settings", "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "scratch cluster" in done.stderr


@pytest.mark.slow
def test_pages_are_weighed_and_within_their_limit(tmp_path: Path, chromium_path: str) -> None:
    facts, printed = bench(tmp_path, "pages", "--rounds", "1")
    assert "checkout, first page" in facts["pages"] and "| kB |" in printed
    for page in facts["pages"].values():
        assert page["status"] == 200 and 20_000 < page["bytes"] <= 100_000


@pytest.mark.slow
def test_up_is_timed_cold_and_warm_and_its_memory_counted(tmp_path: Path) -> None:
    facts, printed = bench(tmp_path, "up", "--rounds", "1")
    assert 0 < facts["warm"]["page_s"] <= facts["warm"]["ready_s"]
    assert 0 < facts["cold"]["page_s"] <= facts["cold"]["ready_s"]
    assert {"web", "worker", "broker", "supervisor"} <= set(facts["memory"])
    assert "other" not in facts["memory"]
    assert facts["memory_bytes"] == sum(facts["memory"].values())
    assert "memory without PostgreSQL" in printed
