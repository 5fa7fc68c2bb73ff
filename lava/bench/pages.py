"""`bench pages`: what a customer's page weighs, and how soon it is there on slow 4G (speed.md, goal
7). Chromium opens each page cold, in a fresh profile, from the web server that `up` runs.

Slow 4G is Lighthouse's: 150 ms a round trip, 1.6 Mbit/s down, 750 kbit/s up. Weight is what came
over the line, headers too, without the card network's own script. Needs playwright and Chromium,
as the browser tests do.
"""

from __future__ import annotations

import shutil
import statistics
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError

from billing import plans
from checkout import offers, sessions
from lava.bench import shop, sides
from lava.bench.options import Options, Say

SLOW_4G = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1_600_000 / 8,
    "uploadThroughput": 750_000 / 8,
}
# Goal 7 for the first page.
MOST_BYTES, MOST_MS = 100_000, 1000
PHONE = "+14155550142"

_PAINTED = """() => new Promise((done) => {
  new PerformanceObserver((list) => {
    const last = list.getEntries().at(-1);
    const first = performance.getEntriesByName('first-contentful-paint')[0];
    const [page] = performance.getEntriesByType('navigation');
    done({first: first?.startTime ?? 0, largest: last.startTime, loaded: page.loadEventEnd});
  }).observe({type: 'largest-contentful-paint', buffered: true});
})"""


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Every page, `rounds` times cold; gives the medians."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise CommandError("This bench needs playwright: install the extra `dev`.") from error
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        raise CommandError("This bench needs Chromium on the PATH.")
    place = shop.fill(1)
    paths = _paths(place)
    server = sides.product(place, database=database)
    found: dict[str, dict[str, Any]] = {}
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name, path in paths.items():
                # The first request of a server fills its caches: no customer's page is that one.
                samples = [
                    _open(browser, f"http://127.0.0.1:{server.port}{path}")
                    for _ in range(options.rounds + 1)
                ][1:]
                found[name] = _medians(samples)
                say(f"{name:<28}{found[name]['bytes']:>9,} B{found[name]['first_ms']:>7.0f} ms")
            browser.close()
    finally:
        server.stop()
    first = found["checkout, first page"]
    return {
        "pages": found,
        "holds": first["bytes"] <= MOST_BYTES and first["first_ms"] <= MOST_MS,
        "correct": all(page["status"] == 200 for page in found.values()),
    }


def _paths(place: shop.Shop) -> dict[str, str]:
    """The pages that need no code: the first of each way in, and the second of the checkout."""
    merchant = place.merchant
    now = merchant.now()
    plan = plans.create(
        merchant,
        terms=plans.Terms(
            name="Studio", price=Decimal(25), included_credit=Decimal(25), rollover_type="full"
        ),
        now=now,
    )
    base = urlsplit(settings.LAVA_BASE_URL)
    origin = f"{base.scheme}://{base.netloc}"
    opened, sent = (
        sessions.create(merchant, mode="subscription", origin_url=origin, plan=plan, now=now)
        for _ in range(2)
    )
    sessions.send_code(sent, phone=PHONE, nonce=sent.nonce, address="192.0.2.1", now=now)
    return {
        "checkout, first page": f"/checkout/{opened.secret}",
        "checkout, first page, de": f"/checkout/{opened.secret}?locale=de",
        "checkout, framed": f"/embed/checkout/{opened.secret}",
        "checkout, the code": f"/checkout/{sent.secret}",
        "a plan's link": urlsplit(offers.address(plan)).path,
        "portal, sign-in": f"/portal/{merchant.public_id}",
    }


def _open(browser: Any, url: str) -> dict[str, Any]:
    """One cold visit."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", SLOW_4G)
    ours: dict[str, bool] = {}
    weighed: list[tuple[str, int]] = []
    home = urlsplit(url).netloc
    line.on(
        "Network.requestWillBeSent",
        lambda event: ours.update(
            {event["requestId"]: urlsplit(event["request"]["url"]).netloc == home}
        ),
    )
    line.on(
        "Network.loadingFinished",
        lambda event: weighed.append((event["requestId"], int(event["encodedDataLength"]))),
    )
    answer = page.goto(url, wait_until="networkidle")
    painted = page.evaluate(_PAINTED)
    context.close()
    counted = [size for key, size in weighed if ours.get(key)]
    return {
        "status": answer.status if answer else 0,
        "bytes": sum(counted),
        "requests": len(counted),
        "first_ms": painted["first"],
        "largest_ms": painted["largest"],
        "loaded_ms": painted["loaded"],
    }


def _medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(row[name] for row in samples) for name in samples[0]}


def table(facts: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    lines = [
        "| page | kB | requests | first paint, ms | largest paint, ms | loaded, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, page in facts["pages"].items():
        lines.append(
            f"| {name} | {page['bytes'] / 1000:.1f} | {page['requests']:.0f} "
            f"| {page['first_ms']:.0f} | {page['largest_ms']:.0f} | {page['loaded_ms']:.0f} |"
        )
    held = "holds" if facts["holds"] else "DOES NOT HOLD"
    return [
        *lines,
        "",
        f"- goal 7 for the first page, {MOST_BYTES // 1000} kB and {MOST_MS / 1000:g} s: {held}",
    ]
