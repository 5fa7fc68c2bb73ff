"""What a person typed into a form of the console, and what was wrong with it.

Used by the builders. A value that cannot be read is kept as it was typed and gets a sentence at its
field; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from billing import errors, money

_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")


@dataclass(slots=True)
class Form:
    """The texts of a form by field, and one sentence for each field that is wrong."""

    values: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Mapping[str, str]) -> Form:
        return cls(values={name: str(value).strip() for name, value in data.items()})

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def amount(self, name: str, *, blank: Decimal | None = None) -> Decimal:
        """The amount in a field; an empty field is `blank`, or a problem where that is None."""
        found = self.optional(name)
        if found is not None:
            return found
        if blank is None and name not in self.problems:
            self.problems[name] = "Write an amount, such as 12.50."
        return blank or Decimal(0)

    def optional(self, name: str) -> Decimal | None:
        """The amount in a field that may be empty: None then, and where it cannot be read."""
        text = self.text(name).replace("\u00a0", "").replace(" ", "")
        if not text:
            return None
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        try:
            return money.parse_amount(text, param=name)
        except errors.Invalid:
            self.problems[name] = "Write an amount such as 12.50, without a sign or letters."
            return None

    def refuse(self, error: errors.LavaError, *, fallback: str = "form") -> None:
        """Show a refusal at its field, or above the form where it names none."""
        self.problems.setdefault(error.param or fallback, error.message)


def plain(amount: Decimal | None, *, places: int = 0) -> str:
    """An amount as a field holds it: all its digits, at least `places` decimals, no exponent."""
    if amount is None:
        return ""
    exponent = amount.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return f"{amount:.{max(places, -exponent)}f}"
