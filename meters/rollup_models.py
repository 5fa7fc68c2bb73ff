"""Sums of usage by quarter of an hour and by local day, and what is not yet summed.

Written by the database alone: a trigger on the requests adds a `UsageDelta` beside each, and
`meters_compact` moves deltas into the sums (`meters/sql/rollups.sql`). So sums + deltas are the
requests, to the last digit, in every snapshot; read through `meters.rollups`.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import models

from billing.models.base import credit_field


class Sums(models.Model):
    """What is added up of requests."""

    requests = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    characters = models.BigIntegerField(default=0)
    seconds = models.DecimalField(max_digits=28, decimal_places=6, default=Decimal(0))
    provider_cost = models.DecimalField(max_digits=30, decimal_places=10, default=Decimal(0))
    fee = models.DecimalField(max_digits=30, decimal_places=10, default=Decimal(0))
    charged = models.DecimalField(max_digits=30, decimal_places=10, default=Decimal(0))
    # What of it came with a provider's cost: less `provider_cost` it is the margin.
    costed = models.DecimalField(max_digits=30, decimal_places=10, default=Decimal(0))

    class Meta:
        abstract = True


class UsageDelta(models.Model):
    """One request's share, or its taking back, until it is summed. Appended, then deleted."""

    merchant_id = models.UUIDField()
    connection_id = models.UUIDField()
    meter_id = models.UUIDField()
    # The provider's model, as the request said it.
    model = models.CharField(max_length=120, default="", db_default="")
    # The quarter of an hour in which the work was done, in UTC.
    bucket = models.DateTimeField()
    requests = models.SmallIntegerField()
    tokens = models.BigIntegerField()
    characters = models.BigIntegerField()
    seconds = models.DecimalField(max_digits=18, decimal_places=6)
    provider_cost = credit_field()
    fee = credit_field()
    charged = credit_field()
    costed = credit_field(default=Decimal(0))

    def __str__(self) -> str:
        return f"{self.requests} at {self.bucket}"


class MerchantUsage(Sums):
    """The sums of all connections of a merchant, by meter."""

    pk = models.CompositePrimaryKey("merchant_id", "meter_id", "bucket")
    merchant_id = models.UUIDField()
    meter_id = models.UUIDField()
    bucket = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.meter_id} at {self.bucket}"


class ConnectionUsage(Sums):
    """The sums of one connection, by meter."""

    pk = models.CompositePrimaryKey("connection_id", "meter_id", "bucket")
    merchant_id = models.UUIDField()
    connection_id = models.UUIDField()
    meter_id = models.UUIDField()
    bucket = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.connection_id} at {self.bucket}"


class ModelUsage(models.Model):
    """The sums of all connections of a merchant, by the provider's model."""

    pk = models.CompositePrimaryKey("merchant_id", "bucket", "model")
    merchant_id = models.UUIDField()
    bucket = models.DateTimeField()
    model = models.CharField(max_length=120)
    requests = models.BigIntegerField()
    provider_cost = models.DecimalField(max_digits=30, decimal_places=10)
    charged = models.DecimalField(max_digits=30, decimal_places=10)
    costed = models.DecimalField(max_digits=30, decimal_places=10)

    def __str__(self) -> str:
        return f"{self.model} at {self.bucket}"


class DayUsage(models.Model):
    """The sums of one connection by local day of its merchant, and by eight of them, so that the
    customers of a quarter of a year are added up out of some twenty rows each. When a merchant
    moves to another time zone, the database sums its days anew (`meters/sql/days.sql`)."""

    pk = models.CompositePrimaryKey("merchant_id", "span", "day", "connection_id")
    merchant_id = models.UUIDField()
    # How many days: 1 or 8, counted from 1970.
    span = models.SmallIntegerField()
    # The first of them.
    day = models.DateField()
    connection_id = models.UUIDField()
    provider_cost = models.DecimalField(max_digits=30, decimal_places=10)
    charged = models.DecimalField(max_digits=30, decimal_places=10)
    costed = models.DecimalField(max_digits=30, decimal_places=10)

    def __str__(self) -> str:
        return f"{self.connection_id} on {self.day}"
