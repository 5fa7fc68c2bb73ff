"""Typed reading of a call's parameters, with Stripe's messages for what is wrong. Used by the
resources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lava.demo.card_network import errors
from lava.demo.card_network.errors import ApiError

_INTEGER = re.compile(r"^-?\d{1,15}$")
_ALWAYS = frozenset({"expand", "key", "_stripe_version"})


class Params:
    """The parameters of one call, or of one group within it (`prefix` names the group)."""

    def __init__(self, values: dict[str, Any], *, prefix: str = "") -> None:
        self.values = values
        self.prefix = prefix

    def name(self, name: str) -> str:
        """The parameter's name as the caller wrote it, for messages."""
        return f"{self.prefix}[{name}]" if self.prefix else name

    def has(self, name: str) -> bool:
        """Whether it was sent at all (the empty string counts)."""
        return name in self.values

    def only(self, *names: str) -> None:
        """Refuse every parameter that is not in `names`."""
        for name in self.values:
            if name not in names and (self.prefix or name not in _ALWAYS):
                raise errors.unknown_parameter(self.name(name))

    def text(self, name: str, *, limit: int = 5000) -> str | None:
        """A string; None when absent or empty."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise ApiError(400, f"Invalid string: {value}", param=self.name(name))
        if len(value) > limit:
            raise ApiError(
                400,
                f"Invalid string: {value[:10]}...{value[-5:]}; must be at most {limit} characters",
                code="parameter_invalid_string_too_long",
                param=self.name(name),
            )
        return value or None

    def required_text(self, name: str) -> str:
        """A string that must be there."""
        if name not in self.values:
            raise errors.missing_parameter(self.name(name))
        value = self.text(name)
        if value is None:
            raise errors.empty_parameter(self.name(name))
        return value

    def integer(self, name: str) -> int | None:
        """A whole number; None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if value == "":
            raise errors.empty_parameter(self.name(name))
        if not isinstance(value, str) or not _INTEGER.match(value):
            raise ApiError(
                400,
                f"Invalid integer: {value}",
                code="parameter_invalid_integer",
                param=self.name(name),
            )
        return int(value)

    def boolean(self, name: str) -> bool | None:
        """`true` or `false`; None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if value not in ("true", "false"):
            raise ApiError(400, f"Invalid boolean: {value}", param=self.name(name))
        return bool(value == "true")

    def choice(self, name: str, options: Sequence[str]) -> str | None:
        """One of `options`; None when absent or empty."""
        value = self.text(name)
        if value is not None and value not in options:
            allowed = ", ".join(options[:-1])
            allowed = f"{allowed}, or {options[-1]}" if allowed else options[-1]
            raise ApiError(400, f"Invalid {name}: must be one of {allowed}", param=self.name(name))
        return value

    def strings(self, name: str) -> list[str] | None:
        """A list of strings; None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ApiError(400, "Invalid array", param=self.name(name))
        return value

    def group(self, name: str) -> Params | None:
        """A nested group; None when absent or empty."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise ApiError(400, "Invalid object", param=self.name(name))
        return Params(value, prefix=self.name(name))

    def metadata(self, current: dict[str, str] | None = None) -> dict[str, str]:
        """`current` with the call's metadata laid over it: an empty value removes a key, an empty
        `metadata` removes all. 50 keys of 40 characters, values of 500."""
        if self.values.get("metadata") == "":
            return {}
        merged = dict(current or {})
        group = self.group("metadata")
        for key in group.values if group else ():
            value = group.values[key] if group else None
            if not isinstance(value, str) or len(key) > 40 or len(value) > 500:
                raise ApiError(
                    400,
                    f"Metadata '{key[:40]}' must be a string of at most 500 characters "
                    "under a name of at most 40.",
                    param=f"metadata[{key}]",
                )
            if value:
                merged[key] = value
            else:
                merged.pop(key, None)
        if len(merged) > 50:
            raise ApiError(400, "You can specify up to 50 metadata keys.", param="metadata")
        return merged
