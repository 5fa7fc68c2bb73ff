"""Both vocabularies of the wire, translated in one place (api.md, Rules).

The code speaks one: `connection_id`, `subscription_config_id`. The newer client says `customer_id`
and `plan_id` for the same things. `read` takes either in; `speak` gives an answer in the words of
the path it was asked on, or both where one path serves both clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from billing import errors

# Ours -> the newer client's, for the same id.
NEWER = {"connection_id": "customer_id", "subscription_config_id": "plan_id"}
_OLDER = {newer: older for older, newer in NEWER.items()}
# Merchants' own keys and values are nobody's vocabulary.
_OPAQUE = frozenset({"metadata"})


class Words(Enum):
    """The words an answer is given in."""

    OLDER = "older"
    NEWER = "newer"
    BOTH = "both"
    # The presenter has said both already: the hot path walks no answer twice.
    AS_WRITTEN = "as written"


def read(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a client sent, in our words; a name given in both vocabularies must agree.

    Raises:
        billing.errors.Invalid: two names of one thing with two values.
    """
    found = dict(told)
    for newer, older in _OLDER.items():
        if newer in found:
            value = found.pop(newer)
            if found.setdefault(older, value) != value:
                raise errors.Invalid(
                    f"`{newer}` and `{older}` name one thing: send one of them.", param=newer
                )
    return found


def speak(answer: Any, words: Words) -> Any:
    """An answer written in our words, in `words`."""
    if words in (Words.OLDER, Words.AS_WRITTEN):
        return answer
    return _speak(answer, both=words is Words.BOTH)


def param(name: str | None, told: Mapping[str, Any]) -> str | None:
    """The field an error names, in the word the client used for it."""
    newer = NEWER.get(name or "")
    return newer if newer is not None and newer in told and name not in told else name


def ids(name: str, value: str) -> dict[str, str]:
    """One id under both of its names."""
    return {name: value, NEWER[name]: value}


def _speak(value: Any, *, both: bool) -> Any:
    if isinstance(value, list):
        return [_speak(item, both=both) for item in value]
    if not isinstance(value, dict):
        return value
    said: dict[str, Any] = {}
    for key, item in value.items():
        newer = NEWER.get(key)
        if newer is None:
            said[key] = item if key in _OPAQUE else _speak(item, both=both)
            continue
        if both:
            said[key] = item
        said[newer] = item
    return said
