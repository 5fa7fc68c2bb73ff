"""Rules of our own that no linter knows, over the product's source: each place that breaks one
stands in the test with the reason, or the test fails."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("billing", "meters", "checkout", "lava")


def sources(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for room in rooms or ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def names(node: ast.AST) -> str:
    """A dotted name, or what of it can be read."""
    if isinstance(node, ast.Attribute):
        return f"{names(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield names(node.func), node


def test_no_float_comes_near_money() -> None:
    """A float loses cents; where one is made it is no money: a colour, a length, a pause."""
    allowed = {
        "billing/receipt_pdf.py": "millimetres on a page",
        "billing/brand.py": "colours",
        "billing/locales.py": "how much a browser wants a language",
        "meters/api_meters.py": "tiers that the official client wants as numbers",
        "meters/gateway/outcomes.py": "seconds to wait",
    }
    found = {
        path
        for path, tree in sources("billing", "meters", "checkout")
        for name, _ in calls(tree)
        if name in ("float", "models.FloatField", "FloatField")
    }
    assert found <= set(allowed), found - set(allowed)


def test_no_amount_is_made_of_a_float() -> None:
    for path, tree in sources():
        for name, call in calls(tree):
            if name in ("Decimal", "decimal.Decimal", "Fraction") and call.args:
                literal = call.args[0]
                assert not (
                    isinstance(literal, ast.Constant) and isinstance(literal.value, float)
                ), f"{path}:{call.lineno}"


def test_no_sql_is_put_together_from_values() -> None:
    """What an `execute` is given is a constant, or built of constants of its module."""
    allowed = {
        # Names of our own, out of the code; never anything that was sent.
        "lava/postgres/base.py",
        "lava/postgres/cluster.py",
        "billing/audit/asking.py",
        "billing/prepared.py",
        "meters/gateway/store.py",
        "meters/rollups.py",
        "lava/operations/metrics.py",
    }
    for path, tree in sources():
        if path in allowed or path.startswith(("lava/bench/", "lava/demo/")):
            continue
        for name, call in calls(tree):
            if not name.endswith((".execute", ".executemany", ".raw", "RawSQL")) or not call.args:
                continue
            sql = call.args[0]
            built = isinstance(sql, ast.JoinedStr) or (
                isinstance(sql, ast.Call) and names(sql.func).endswith(".format")
            )
            assert not built, f"{path}:{call.lineno}"


def test_only_empty_text_and_our_own_drawings_are_marked_safe() -> None:
    allowed = {
        "lava/console/account.py": "a QR code, drawn here",
        "lava/console/plans/pages.py": "too",
    }
    for path, tree in sources():
        for name, call in calls(tree):
            if name.endswith("mark_safe") and path not in allowed:
                (text,) = call.args
                assert isinstance(text, ast.Constant), f"{path}:{call.lineno}"
    for path in (ROOT / "templates").rglob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape\s+off", path.read_text()), path


def test_messages_only_wake_workers() -> None:
    """Work is a row first; a message is sent by the sweep, or as a hint that may be lost."""
    allowed = {"billing/tasks.py", "billing/hints.py", "lava/tasks.py"}
    found = {
        path
        for path, tree in sources()
        for name, _ in calls(tree)
        if name.endswith((".delay", ".apply_async"))
    }
    assert found == allowed


def test_nothing_is_imported_that_runs_what_it_reads() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                told = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                bad = {"pickle", "marshal", "shelve", "yaml"} & set(told)
                assert not bad, f"{path}:{node.lineno}: {bad}"
        for name, call in calls(tree):
            assert name not in ("eval", "exec"), f"{path}:{call.lineno}"


def test_the_console_asks_for_rows_of_one_merchant() -> None:
    """A question that begins at a model names the merchant, or something of one merchant's."""
    allowed = {
        # Whether anybody is here yet: the first page of an empty product.
        "User.objects.exists()",
        # Prefetched, of the merchant's own plans.
        "Meter.objects.filter(archived_at=None)",
    }
    scoped = re.compile(
        r"merchant|organization|connection|subscription|plan|meter|mine|user|invitation|token|pk"
        r"|payment|email"
    )
    for path, tree in sources("lava/console"):
        for name, call in calls(tree):
            if not re.fullmatch(r"[A-Z]\w+\.objects\.(all|filter|get|exclude|count|exists)", name):
                continue
            words = ast.unparse(call)
            if words not in allowed:
                assert scoped.search(words.partition("objects")[2]), (
                    f"{path}:{call.lineno}: {words}"
                )
