"""Who may be called: the table of providers, one row each. Pure.

The base addresses are those of the official client. A merchant adds rows of its own
(`meters.models.Provider`); `targets.resolve` checks every call against the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

from meters.gateway.readers import PLAIN, Rules

# How a provider takes its key; also where a caller may put its token.
BEARER = "authorization"
SLOTS = (BEARER, "x-api-key", "x-goog-api-key", "api-key", "xi-api-key", "key")

DIALECTS = ("openai", "anthropic", "google", "cohere", "elevenlabs", "bedrock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row: an origin and the paths on it that may be called.

    `paths` are prefixes, the first is the base that SDKs are given. `prices` is the provider's name
    in the price library. `asks_usage`: a chat stream states its usage only when asked.
    """

    slug: str
    name: str
    host: str
    paths: tuple[str, ...]
    dialect: str = "openai"
    slot: str = BEARER
    prices: str = ""
    asks_usage: bool = False
    rules: Rules = PLAIN
    scheme: str = "https"
    port: int = 443
    # A row of a merchant's own.
    own: bool = False
    # May lie in one's own network (one's own vLLM).
    private: bool = False
    # Work that runs on after the answer (batches, fine-tuning, background) may be started here.
    long_running: bool = False

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a stored key is bound to."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def base(self) -> str:
        """The base address as SDKs are given it."""
        usual = {"https": 443, "http": 80}[self.scheme]
        port = "" if self.port == usual else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.paths[0]}"


def _openai(slug: str, name: str, base: str, *, prices: str = "", also: str = "") -> Provider:
    """A row that speaks OpenAI's dialect and states a stream's usage when asked."""
    host, _, path = base.partition("/")
    return Provider(
        slug=slug, name=name, host=host, paths=(f"/{path}", *also.split()), prices=prices,
        asks_usage=True,
    )  # fmt: skip


TABLE: tuple[Provider, ...] = (
    _openai("openai", "OpenAI", "api.openai.com/v1", prices="openai"),
    Provider(
        slug="anthropic", name="Anthropic", host="api.anthropic.com", paths=("/v1",),
        dialect="anthropic", slot="x-api-key", prices="anthropic",
    ),
    Provider(slug="mistral", name="Mistral", host="api.mistral.ai", paths=("/v1",),
             prices="mistral"),
    _openai("deepseek", "DeepSeek", "api.deepseek.com/v1", prices="deepseek",
            also="/chat /beta /models"),
    _openai("xai", "xAI", "api.x.ai/v1", prices="x-ai"),
    Provider(
        slug="google", name="Google Gemini", host="generativelanguage.googleapis.com",
        paths=("/v1beta", "/v1", "/v1alpha"), dialect="google", slot="x-goog-api-key",
        prices="google",
    ),
    Provider(
        slug="googleOpenaiCompatible", name="Google Gemini (OpenAI-compatible)",
        host="generativelanguage.googleapis.com", paths=("/v1beta/openai",), prices="google",
        asks_usage=True, rules=Rules(hides_reasoning=True),
    ),
    _openai("kluster", "kluster.ai", "api.kluster.ai/v1"),
    _openai("inference", "inference.net", "api.inference.net/v1"),
    _openai("groq", "Groq", "api.groq.com/openai/v1", prices="groq"),
    _openai("novita", "Novita", "api.novita.ai/v3/openai", prices="novita"),
    Provider(slug="vercel", name="Vercel v0", host="api.v0.dev", paths=("/v1",)),
    _openai("together", "Together", "api.together.xyz/v1", prices="together"),
    _openai("hyperbolic", "Hyperbolic", "api.hyperbolic.xyz/v1", prices="huggingface_hyperbolic"),
    Provider(
        slug="elevenlabs", name="ElevenLabs", host="api.elevenlabs.io", paths=("/v1",),
        dialect="elevenlabs", slot="xi-api-key", prices="elevenlabs",
    ),
    _openai("sambanova", "SambaNova", "api.sambanova.ai/v1", prices="huggingface_sambanova"),
    _openai("deepinfra", "DeepInfra", "api.deepinfra.com/v1/openai"),
    Provider(
        slug="cohere", name="Cohere", host="api.cohere.ai", paths=("/compatibility/v1", "/v2"),
        dialect="cohere", prices="cohere",
    ),
    _openai("parasail", "Parasail", "api.parasail.io/v1"),
    _openai("nebius", "Nebius", "api.studio.nebius.com/v1", prices="huggingface_nebius"),
    _openai("fireworks", "Fireworks", "api.fireworks.ai/inference/v1", prices="fireworks"),
    _openai("cerebras", "Cerebras", "api.cerebras.ai/v1", prices="cerebras"),
    _openai("targon", "Targon", "api.targon.com/v1"),
    _openai("gmicloud", "GMI Cloud", "api.gmi-serving.com/v1"),
    _openai("chutes", "Chutes", "llm.chutes.ai/v1"),
    _openai("baseten", "Baseten", "inference.baseten.co/v1", prices="baseten"),
    _openai("moonshot", "Moonshot", "api.moonshot.ai/v1", prices="moonshotai"),
    # Beyond the client of 8.1: one more of 11.2, and who states its own cost.
    _openai("embercloud", "Ember Cloud", "api.embercloud.ai/v1"),
    Provider(
        slug="openrouter", name="OpenRouter", host="openrouter.ai", paths=("/api/v1",),
        prices="openrouter", asks_usage=True, rules=Rules(states_cost=True),
    ),
    Provider(slug="cohereNative", name="Cohere (its own dialect)", host="api.cohere.com",
             paths=("/v2", "/v1"), dialect="cohere", prices="cohere"),
)  # fmt: skip

BY_SLUG = {row.slug.lower(): row for row in TABLE}

# Which provider serves a model that is named without one: the first whose prefix fits.
FAMILIES: tuple[tuple[str, str], ...] = (
    ("gpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"),
    ("chatgpt-", "openai"), ("text-embedding-", "openai"), ("codex-", "openai"),
    ("computer-use-", "openai"), ("claude", "anthropic"), ("gemini", "googleOpenaiCompatible"),
    ("gemma", "googleOpenaiCompatible"), ("mistral", "mistral"), ("magistral", "mistral"),
    ("ministral", "mistral"), ("codestral", "mistral"), ("devstral", "mistral"),
    ("pixtral", "mistral"), ("open-mistral", "mistral"), ("open-mixtral", "mistral"),
    ("deepseek-", "deepseek"), ("grok", "xai"), ("command", "cohere"), ("kimi", "moonshot"),
    ("moonshot-", "moonshot"),
)  # fmt: skip
