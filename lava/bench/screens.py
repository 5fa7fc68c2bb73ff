"""`bench console`: how long each page of the console takes, and how many queries, with a great many
requests behind it (speed.md, goal 7).

The demo's story is told with a crowd of `--requests` requests beside it, a hundred a customer; then
the owner opens every page that a link of another one leads to, each kind of page once, as often as
`--rounds` says. Within this process: a page is what the view and its templates cost, without the
line to the browser.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from html import unescape
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import Connection, User
from lava.bench.options import Options, Say
from lava.demo.card_network.process import CardNetwork
from lava.demo.story import cast
from lava.management.commands import demo
from meters import rollups
from meters.models import UsageRequest

# Goal 7.
MOST_QUERIES, MOST_MS = 12, 150
# So many of the slowest are in the table.
SHOWN = 12

_LINK = re.compile(r'href="((?:/console/|\?)[^"#]*)"')
# What tells one row's page from another's: public ids, keys, numbers.
_ROW = re.compile(r"[a-z]+_(?:test_)?[0-9A-HJKMNP-TV-Z]{26}|[0-9a-f-]{36}|\b\d+\b")
_NOT_PAGES = ("/console/logout", "/console/jsi18n")


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Fill, open every kind of page, time each."""
    state = Path(settings.STATE_DIR)
    with CardNetwork(state / "cards.db") as network:
        settings.STRIPE_API_BASE = network.url
        demo.perform(state / "demo.json", scale=options.requests, say=say)
        _settle_down()
        client = _signed_in()
        found = {}
        for path, first in _walk(client).items():
            found[path] = first | {"ms": _median_ms(client, first["at"], options.rounds)}
            say(f"{path:<60}{found[path]['queries']:>4} queries{found[path]['ms']:8.1f} ms")
    beyond = [
        path
        for path, page in found.items()
        if page["queries"] > MOST_QUERIES or page["ms"] > MOST_MS
    ]
    return {
        "requests": UsageRequest.objects.count(),
        "connections": Connection.objects.count(),
        "pages": found,
        "beyond": beyond,
        "correct": len(found) > 1,
    }


def _settle_down() -> None:
    """What a worker and the database do by themselves, minutes after so much was written."""
    while rollups.compact():
        pass
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


def _signed_in() -> Client:
    client = Client(headers={"host": "localhost"})
    owner = User.objects.get(email=cast.OWNER_EMAIL)
    client.force_login(owner, backend="billing.tenancy.RoleBackend")
    return client


def _walk(client: Client) -> dict[str, dict[str, Any]]:
    """Every kind of page, by its path without what names a row, with its queries."""
    found: dict[str, dict[str, Any]] = {}
    seen = {"/console/"}
    waiting = deque(["/console/"])
    while waiting:
        path = waiting.popleft()
        # The first time fills what a process keeps.
        client.get(path)
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(path)
        is_page = answer.headers.get("Content-Type", "").startswith("text/html")
        if answer.status_code != 200 or not is_page:
            # A file, a way to somewhere else, or nothing for who asks.
            continue
        found[_ROW.sub("*", path)] = {"at": path, "queries": len(queries)}
        for link in map(unescape, _LINK.findall(answer.content.decode())):
            if link.startswith("?"):
                link = path.partition("?")[0] + link
            kind = _kind(link)
            if kind not in seen and not link.startswith(_NOT_PAGES):
                seen.add(kind)
                waiting.append(link)
    return found


def _kind(link: str) -> str:
    """Pages whose paths differ by a row, and whose queries by values alone, are one kind."""
    path, _, query = link.partition("?")
    names = sorted({pair.partition("=")[0] for pair in query.split("&") if pair})
    return "?".join([_ROW.sub("*", path), *(["&".join(names)] if names else [])])


def _median_ms(client: Client, path: str, times: int) -> float:
    taken = []
    for _ in range(times):
        since = time.perf_counter()
        client.get(path)
        taken.append((time.perf_counter() - since) * 1000)
    return statistics.median(taken)


def table(facts: dict[str, Any]) -> list[str]:
    """The slowest pages as Markdown, and how many hold the goal."""
    pages = sorted(facts["pages"].items(), key=lambda item: -item[1]["ms"])
    lines = ["| page | queries | ms |", "|---|---|---|"]
    lines += [f"| {path} | {page['queries']} | {page['ms']:.1f} |" for path, page in pages[:SHOWN]]
    most = max(page["queries"] for _, page in pages)
    middle = statistics.median(page["ms"] for _, page in pages)
    return [
        *lines,
        "",
        f"- {facts['requests']:,} requests of {facts['connections']:,} connections; "
        f"{len(pages)} kinds of page, in the middle {middle:.1f} ms, with at most {most} queries",
        f"- beyond {MOST_QUERIES} queries or {MOST_MS} ms: {', '.join(facts['beyond']) or 'none'}",
    ]
