"""The local AI provider: an HTTP server of its own that answers as OpenAI, Anthropic and Gemini do.

Owns no state but its journal, in memory. It imports neither Django nor the product; `manage.py up`
and tests start it as a process (`python -m lava.demo.ai_provider --port P`) and the gateway
forwards to it as to any provider. No model runs: the reply is made of short words, and its usage is
counted, not invented (`tokens.py`), so the same prompt always costs the same.

OpenAI     POST /v1/chat/completions, /v1/responses, /v1/embeddings; GET /v1/models, /v1/models/{id}
Anthropic  POST /v1/messages, /v1/messages/count_tokens; GET /v1/models (with `anthropic-version`)
Gemini     POST /v1beta/models/{m}:generateContent, :streamGenerateContent (`alt=sse`, else a JSON
           array), :countTokens; GET /v1beta/models, /v1beta/models/{m}

Any key is accepted, in the dialect's own slot; none is 401 (Gemini: 403, as Google answers). Any
model name is accepted for work; only the listed ones are found under `/models/{id}`.

A request may steer its own answer with headers:
  x-stub-delay-ms        wait before answering
  x-stub-status          answer this error status instead, in the dialect's shape
  x-stub-input-tokens    report this many input tokens
  x-stub-output-tokens   make the reply exactly this long (the request's own limit still cuts it)
  x-stub-chunk-delay-ms  wait before each piece of a stream
  x-stub-cut-after       close the line after this many pieces of a stream

GET    /_control/journal  {"data": [{id, method, path, query, headers, body, status}]}, oldest
                          first, the last 1000 requests, keys included: tests look at what arrived
DELETE /_control/journal  empties it
GET    /_control/health   {"ok": true}
"""
