"""`manage.py provider_key openai`: enter a merchant's key at a provider, for the gateway.

The key comes on standard input and the merchant's books from the secret key in `LAVA_KEY`, so that
neither stands in the list of processes or the shell's history. With `--base-url` the provider is
the merchant's own and is added first; `--private` lets it be on one's own network.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from billing import errors, keys
from meters.gateway import keyring


class Command(BaseCommand):
    help = "Enter a merchant's key at a provider; the key on standard input, LAVA_KEY says whose."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", help="its name in the gateway's addresses, e.g. openai")
        parser.add_argument("--base-url", default="", help="a provider of the merchant's own")
        parser.add_argument("--private", action="store_true", help="it is on one's own network")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            merchant = keys.find(os.environ.get("LAVA_KEY", "")).merchant
            if options["base_url"]:
                keyring.add_provider(
                    merchant,
                    slug=options["provider"],
                    name=options["provider"],
                    base_url=options["base_url"],
                    private=options["private"],
                    now=merchant.now(),
                )
            made = keyring.set_key(
                merchant,
                provider=options["provider"],
                key=sys.stdin.read(),
                actor="manage.py provider_key",
                now=merchant.now(),
            )
        except errors.Unauthenticated as error:
            raise CommandError("Set LAVA_KEY to a secret key of the merchant's books.") from error
        except errors.LavaError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{made.provider}: the key that ends in {made.last4} is in use.")
