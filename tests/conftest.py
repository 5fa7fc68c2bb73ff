"""What every test stands on: the tests' own cluster, and the tools some of them need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

os.environ["LAVA_CLUSTER"] = "test"
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
# Messages only wake workers, and here are none: they go nowhere, at once.
os.environ["CELERY_BROKER_URL"] = "memory://"

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "lava", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("lava")


def pytest_configure(config: pytest.Config) -> None:
    """The main process starts the cluster, so that it also ends it after the last worker.

    People are made by the hundred here: their passwords are hashed the quick way. So are test
    clients, and each would read every static file anew: they are looked for when asked for.
    """
    from django.conf import settings as django_settings

    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django_settings.WHITENOISE_AUTOREFRESH = True
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        from lava.postgres import cluster

        if not os.environ.get("DATABASE_URL"):
            cluster.ensure()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads as if each were a process of its own: their charges do not take turns."""
    from meters.turns import Turns

    monkeypatch.setattr(
        Turns, "row", lambda turns, connection, key, params: turns.statement.row(params)
    )


def _tool(names: tuple[str, ...], variable: str) -> str:
    """A program a test needs: skipped where it is missing, a failure under CI."""
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"{' or '.join(names)} is not on this machine"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def chromium_path() -> str:
    return _tool(("chromium", "chromium-browser", "google-chrome"), "CHROMIUM")


@pytest.fixture(scope="session")
def node_path() -> str:
    return _tool(("node",), "NODE")


@pytest.fixture(scope="session")
def clients_dir(node_path: str) -> Path:
    """The folder with the official npm clients; installed by `npm ci`."""
    folder = Path(__file__).parent / "clients"
    if not (folder / "node_modules").exists():
        reason = "the npm clients are not installed: run npm ci --prefix tests/clients"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


from pytest_django import DjangoDbBlocker

from tests import template
from tests.card_network import card_network, running_card_network
from tests.chromium import CHROMIUM, browser, group
from tests.kept import KEPT, kept
from tests.meters.gateway.live import gateway_server
from tests.product import PRODUCT, empty_product, product

__all__ = [
    "browser",
    "card_network",
    "empty_product",
    "gateway_server",
    "kept",
    "product",
    "running_card_network",
]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: DjangoDbBlocker
) -> None:
    with django_db_blocker.unblock():
        template.use()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    group(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    yield
    for shared in (CHROMIUM, PRODUCT):
        shared.after(item, nextitem)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    KEPT.begin(item)
