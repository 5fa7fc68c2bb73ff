"""Stories run against the real local card network, and end with a silent audit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def the_books_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each story every rule of the audit holds."""
    database = "transactional_db" if _is_transactional(request) else "db"
    request.getfixturevalue(database)
    yield
    from billing import audit as money_audit
    from meters import audit as usage_audit

    broken = {
        rule.name: found
        for rule in (*money_audit.RULES, *usage_audit.RULES)
        if (found := rule.rows())
    }
    assert not broken


def _is_transactional(request: pytest.FixtureRequest) -> bool:
    marker = request.node.get_closest_marker("django_db")
    return bool(marker and marker.kwargs.get("transaction"))
