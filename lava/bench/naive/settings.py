"""The product's settings with Django's and DRF's defaults in the place of what was made lean."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from lava.bench import scratch
from lava.settings import *  # noqa: F403
from lava.settings import STATE_DIR

if not scratch.is_marked(STATE_DIR):
    raise ImproperlyConfigured("The naive design charges on a bench's scratch cluster alone.")

ROOT_URLCONF = "lava.bench.naive.urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["billing.authentication.SecretKeyAuthentication"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
