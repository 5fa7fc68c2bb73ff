"""What migrations share: the words for an amount in a check, and how checks are replaced beside
running charges. Called by the migrations of billing and meters alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.db import migrations

# As `billing.models.base.bounded`, whose reasons these are.
NUMBER = "{0} > -1000000000000.0 AND {0} < 1000000000000.0"
AMOUNT = "{0} >= 0.0 AND {0} < 1000000000000.0"


def said_again(checks: Mapping[str, Mapping[str, str]]) -> Iterator[migrations.RunSQL]:
    """Steps that replace checks, `{table: {name: rule}}`, for a migration that is not atomic.

    Each may be run again. The rows are looked at in steps of their own, which stop no charge.
    """
    for table, rules in checks.items():
        # In one statement, so that no row comes between.
        moves = [f"DROP CONSTRAINT IF EXISTS {name}" for name in rules]
        moves += [f"ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID" for name, rule in rules.items()]
        yield migrations.RunSQL(f"ALTER TABLE {table} {', '.join(moves)}", migrations.RunSQL.noop)
    for table, rules in checks.items():
        for name in rules:
            yield migrations.RunSQL(
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}", migrations.RunSQL.noop
            )
