"""The demo: a merchant's story, and the two local stand-ins it runs on.

`card_network` speaks Stripe's HTTP and `ai_provider` the HTTP of OpenAI, Anthropic and Gemini, each
as a process of its own on loopback. The product never imports them: it reaches them by address,
exactly as it reaches the real ones.
"""
