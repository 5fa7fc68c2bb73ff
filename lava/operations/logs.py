"""What happened, one JSON object a line in production, with the request's id and without secrets.

`LOGGING` and `configure` are the settings' alone. Whatever is logged, by us or by a library, passes
`redact`: the unguessable part of a key, token or signing secret never reaches a log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

# Our keys, tokens and checkout secrets; the card network's keys and client secrets; signing
# secrets; providers' keys; whatever follows Bearer or Basic.
_SECRET = re.compile(
    r"\b((?:aks|lft|spk|css|sk|rk|whsec)[_-](?:live_|test_|proj-|ant-)?"
    r"|(?:pi|seti)_[A-Za-z0-9]+_secret_)[A-Za-z0-9+/=_-]{12,}"
    r"|(?i:(bearer|basic) )[A-Za-z0-9+/=._~-]{12,}"
)


def hidden(text: str) -> str:
    """A text with every secret in it cut down to what kind of secret it is."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2] + ' '}[redacted]", text)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last processor but the renderer: hide secrets in every text, however deep."""
    for name, value in event.items():
        event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, dict):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    return value


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.processors.format_exc_info,
]


class Formatter(structlog.stdlib.ProcessorFormatter):
    """The standard library's records in the same shape as our own."""

    def __init__(self, *, production: bool) -> None:
        super().__init__(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_SHARED],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                _renderer(production),
            ],
        )


def _renderer(production: bool) -> Any:
    if production:
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=_plain)


def _plain(out: Any, info: Any) -> None:
    structlog.dev.plain_traceback(out, info)


def config(*, production: bool) -> dict[str, Any]:
    """`LOGGING`: a page that fails says why on standard error; a 404 is the visitor's."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": lambda: Formatter(production=production)}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "django": {"handlers": [], "level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "lava": {"level": "INFO"},
        },
    }


def configure() -> None:
    """Send structlog's events through the standard library, so that there is one way out."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
