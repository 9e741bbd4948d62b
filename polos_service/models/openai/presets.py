"""The providers that speak the APIs of OpenAI: a table."""

from __future__ import annotations

from collections.abc import Mapping

from polos_service.models.openai.apis import ChatCompletions, Responses
from polos_service.models.openai.dialect import MISTRAL_IDS, OPENAI_IDS, PLAIN, Dialect
from polos_service.models.preset import Preset

OPENAI_URL = "https://api.openai.com/v1"
"""The base URL of OpenAI itself."""

_OPENAI = Dialect(
    bound="max_completion_tokens",
    reasoning=None,
    no_text=None,
    schema_with_tools=True,
    call_ids=OPENAI_IDS,
)
"""OpenAI's newer models refuse `max_tokens`. Its chat completions show no reasoning."""

OPENAI = Preset(
    name="openai",
    apis={
        "chat_completions": ChatCompletions(dialect_of_openai=_OPENAI),
        "responses": Responses(),
    },
    base_url=OPENAI_URL,
    key_variable="OPENAI_API_KEY",
    url_variable="OPENAI_BASE_URL",
    headers={"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"},
    headers_variable="OPENAI_CUSTOM_HEADERS",
    needs_key=True,
)
"""OpenAI, and any other server at an address of its own."""

AZURE = Preset(
    name="azure",
    apis={
        "chat_completions": ChatCompletions(dialect=_OPENAI, key_header="api-key"),
        "responses": Responses(key_header="api-key"),
    },
    base_url=None,
    base_path="/openai/v1",
    hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
    key_variable="AZURE_OPENAI_API_KEY",
    url_variable="AZURE_OPENAI_ENDPOINT",
    needs_key=True,
    price_list="azure",
)
"""Azure OpenAI, version 1 of its API: the model is the name of a deployment."""


def _row(
    name: str,
    base_url: str,
    base_path: str,
    dialect: Dialect = PLAIN,
    *,
    needs_key: bool = True,
    price_list: str | None = None,
) -> Preset:
    """Return a provider of chat completions whose variables are NAME_API_KEY and NAME_BASE_URL."""
    return Preset(
        name=name,
        apis={"chat_completions": ChatCompletions(dialect=dialect)},
        base_url=base_url + base_path,
        base_path=base_path,
        key_variable=f"{name.upper()}_API_KEY",
        url_variable=f"{name.upper()}_BASE_URL",
        needs_key=needs_key,
        price_list=price_list,
    )


PRESETS: Mapping[str, Preset] = {
    one.name: one
    for one in (
        OPENAI,
        AZURE,
        # Thinking models refuse a conversation in which their reasoning_content is missing. It has
        # no schemas of answers.
        _row(
            "deepseek",
            "https://api.deepseek.com",
            "",
            Dialect(schema=False),
            price_list="deepseek",
        ),
        _row("fireworks", "https://api.fireworks.ai", "/inference/v1", price_list="fireworks"),
        # Unknown members of a request or a message are refused.
        _row(
            "gemini",
            "https://generativelanguage.googleapis.com",
            "/v1beta/openai",
            Dialect(reasoning=None),
            price_list="google",
        ),
        # `reasoning_content` is refused, and `reasoning` by models that do not reason. Schemas of
        # answers are not streamed.
        _row(
            "groq",
            "https://api.groq.com",
            "/openai/v1",
            Dialect(bound="max_completion_tokens", reasoning=None, schema=False),
            price_list="groq",
        ),
        # What stands behind it may refuse an empty text.
        _row("litellm", "http://localhost:4000", "/v1", Dialect(no_text=None), needs_key=False),
        # Unknown members are refused, `max_completion_tokens` and `reasoning_content` among
        # them. It tells the usage without being asked.
        _row(
            "mistral",
            "https://api.mistral.ai",
            "/v1",
            Dialect(stream_options=False, reasoning=None, call_ids=MISTRAL_IDS),
            price_list="mistral",
        ),
        _row(
            "ollama",
            "http://localhost:11434",
            "/v1",
            Dialect(reasoning="reasoning"),
            needs_key=False,
        ),
        _row(
            "openrouter",
            "https://openrouter.ai",
            "/api/v1",
            Dialect(reasoning="reasoning"),
            price_list="openrouter",
        ),
        _row("together", "https://api.together.xyz", "/v1", price_list="together"),
        _row("vllm", "http://localhost:8000", "/v1", needs_key=False),
    )
}
"""By name."""
