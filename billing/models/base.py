"""What every row of a merchant has in common: its ULID key, its merchant, its public id.

Owned by billing; meters and checkout derive their own tables from `Tenant` too.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Self
from uuid import UUID

from django.db import models

from billing import errors, ids


class TenantQuerySet(models.QuerySet[Any]):
    """Questions about many rows of one merchant."""

    def of(self, merchant: Any) -> Self:
        """The rows of one merchant (its sandbox and its live books are two merchants)."""
        return self.filter(merchant_id=merchant.pk)

    def by_public_id(self, text: str) -> Any:
        """The row a client named, e.g. `con_test_01J...`.

        Raises:
            billing.errors.NotFound: the id is malformed or no row of this queryset has it.
        """
        row = self.filter(pk=ids.parse(self.model.ID_PREFIX, text)).first()
        if row is None:
            raise errors.NotFound(f"No such {self.model._meta.verbose_name}: {text}")
        return row


class Keyed(models.Model):
    """A row whose key is a ULID, made when the row is first saved."""

    id = models.UUIDField(primary_key=True, editable=False)

    class Meta:
        abstract = True

    @property
    def _books_are_sandbox(self) -> bool:
        """Which books the key names; what belongs to a whole organization names the live ones."""
        return False

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is None:
            self.pk = ids.new(sandbox=self._books_are_sandbox)
        if self._state.adding:
            # Else Django, seeing a key, would first send an UPDATE that finds nothing.
            kwargs.setdefault("force_insert", True)
        super().save(*args, **kwargs)


class Tenant(Keyed):
    """A row that belongs to one merchant.

    `merchant` leads every hot key, so that a larger installation can be split by it; the composite
    foreign keys of `billing/sql/walls.sql` make rows of two merchants unable to point at each
    other.
    """

    ID_PREFIX: ClassVar[str]

    # Its index is the unique key (merchant, id) that the walls need.
    merchant = models.ForeignKey(
        "billing.Merchant", on_delete=models.PROTECT, related_name="+", db_index=False
    )

    objects: ClassVar[Any] = TenantQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def _books_are_sandbox(self) -> bool:
        sandbox: bool = self.merchant.is_sandbox
        return sandbox

    @property
    def public_id(self) -> str:
        """The id as clients see it, e.g. `con_test_01J8Z...`."""
        key: UUID = self.pk
        return ids.public(self.ID_PREFIX, key)


class Walled(Tenant):
    """A row whose merchant stands in a composite foreign key, together with what the row belongs to
    (`walls.sql`, `hold_guards.sql`): a key of its own beside that would say nothing more."""

    merchant = models.ForeignKey(
        "billing.Merchant",
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )

    class Meta:
        abstract = True


def credit_field(**kwargs: Any) -> models.DecimalField[Any, Any]:
    """A column for credits and fees: 12 integer digits, 10 decimals (money.md, Numbers)."""
    return models.DecimalField(max_digits=22, decimal_places=10, **kwargs)


def bounded(field: str, *, low: int = 0) -> models.Q:
    """A CHECK that also keeps out NaN: PostgreSQL sorts NaN above every number.

    In decimals, as the column is: PostgreSQL reads a table's checks anew for each statement, and
    would turn a whole number into a decimal each time.
    """
    return models.Q(**{f"{field}__gte": Decimal(f"{low}.0"), f"{field}__lt": Decimal("1e12")})
