"""Schemathesis: generated calls with real ids among them: no 5xx, no undocumented answer."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from lava.api import door
from lava.wsgi import application
from tests import wire

pytestmark = pytest.mark.django_db

schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", application)
# The call that goes to the card network is played in tests/checkout.
ELSEWHERE = "/v1/test_helpers/checkout_sessions/{session_id}/complete"


@pytest.fixture
def world(db: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[wire.World]:
    # As Django's own test client does: the calls share the test's transaction.
    monkeypatch.setattr(door, "close_old_connections", lambda: None)
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    try:
        yield wire.World()
    finally:
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)


@schema.exclude(path=ELSEWHERE).parametrize()
@settings(
    max_examples=int(os.environ.get("LAVA_SCHEMATHESIS", "8")),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_generated_calls_are_answered_as_described(
    case: schemathesis.Case, world: wire.World
) -> None:
    real = world.ids()
    # Half of the calls name things that are there; generated ids hardly ever do.
    if zlib.crc32(repr(case.body).encode()) % 2 == 0:
        for name in case.path_parameters or {}:
            case.path_parameters[name] = real[name]
        if isinstance(case.body, dict):
            for name in case.body.keys() & real.keys():
                if name not in ("request_id",):
                    case.body[name] = real[name]
            if isinstance(case.body.get("meter_slug"), str):
                case.body["meter_slug"] = "chat"
    case.call_and_validate(
        headers={"Authorization": f"Bearer {world.key}"},
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
