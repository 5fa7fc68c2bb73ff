"""What a call is charged for: the usage that is believed, and what it costs the merchant.

Called by `proxy` before a call, for its hold, and by `calls` at its end. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from meters import costs
from meters.gateway import estimates
from meters.gateway.callers import Caller
from meters.gateway.readers import Usage
from meters.gateway.targets import Target

# What a call may use beyond what it asked for and still be believed.
_MORE_INPUT, _MORE_OUTPUT = 2_000_000, 200_000


def believed(
    found: Usage | None,
    asked: estimates.Asked,
    *,
    sent: int,
    output_so_far: Callable[[], int],
    whole: bool,
) -> tuple[Usage, list[str]]:
    """The usage to charge: what the answer states, within what is possible; an estimate by the text
    (`output_so_far`) where it states nothing, or less than came before it broke off (`whole` is
    false): Anthropic states 1 token as it begins. With words on how it was found."""
    flags: list[str] = []
    estimate = asked.estimate
    if found is None and (asked.characters or estimate.images or estimate.input_seconds):
        # Speech, pictures, recordings: counted by what was asked.
        return replace(estimate, input=0, output=0), flags
    if found is None or (found.suspect and not (found.input or found.output)):
        flags.append("suspect" if found is not None else "estimated")
        return Usage(input=estimate.input, output=output_so_far()), flags
    if found.suspect:
        flags.append("suspect")
    if not whole and (made := output_so_far()) > found.output:
        flags.append("estimated")
        found = replace(found, output=made)
    most_input = sent + estimate.input + _MORE_INPUT
    most_output = 4 * estimate.output + _MORE_OUTPUT
    if found.input > most_input or found.output > most_output:
        flags.append("capped")
        found = replace(
            found, input=min(found.input, most_input), output=min(found.output, most_output)
        )
    return found, flags


def find_cost(
    caller: Caller,
    target: Target,
    models: tuple[str, ...],
    used: Usage,
    asked: estimates.Asked,
    *,
    now: datetime,
) -> costs.Cost | None:
    """What a call costs the merchant, by the rows and the currency of the caller."""
    return costs.find(
        target.provider.slug,
        models,
        used,
        prices=target.provider.prices,
        overrides=caller.overrides,
        currency=caller.currency,
        now=now,
        characters=asked.characters,
    )


def estimated_costs(
    caller: Caller, target: Target, asked: estimates.Asked, *, now: datetime
) -> tuple[Decimal | None, Decimal | None]:
    """The cost of the whole estimate, and of its input alone."""
    whole = find_cost(caller, target, (asked.model,), asked.estimate, asked, now=now)
    if whole is None:
        return None, None
    floor = find_cost(
        caller, target, (asked.model,), replace(asked.estimate, output=0), asked, now=now
    )
    return whole.amount, floor.amount if floor else Decimal(0)
