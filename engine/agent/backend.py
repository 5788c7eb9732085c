"""Models behind an API or a local server, through pydantic-ai's direct requests.

One call is one request over HTTP: the libraries' own retries are off. It runs in a thread of its
own with its own connection, so that nothing that blocks in a library can hold the caller beyond
its deadline, and what is abandoned is cancelled.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from engine.agent.keys import key_of, redacted
from engine.agent.llm import Finish, LlmError, Message, Reply, Request, Usage
from engine.agent.prices import Prices
from engine.errors import UsageError
from engine.schema import LlmConfig

if TYPE_CHECKING:
    from httpx2 import Timeout
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model as Client

EXTRAS = {"anthropic": ("llm-anthropic", "anthropic"), "google": ("llm-google", "google.genai")}
"""Doors that need more than the extra ``llm``: their extra and the package that it brings."""
GRACE_S = 1.0
"""Seconds that a cancelled request may take to end before its thread is left behind."""
THREAD = "language model"
"""Name of the threads in which calls run."""
CONNECT_S = 20.0
"""Seconds for opening a connection: a server that is not there costs no whole deadline."""
UNLIMITED_S = 86_400.0
"""Seconds without a byte after which a call without a deadline is given up."""
LONGEST_REASON = 300
"""Characters of a provider's error that are shown."""
DEEPEST_CAUSE = 4
"""Causes behind a provider's error that are told; the innermost is mostly the plainest."""
ONLY_JSON = "Answer with one JSON value and nothing else. It must meet this JSON schema:"


class Backend:
    """A provider's model. ``complete`` makes one attempt and raises LlmError, which says whether
    another may help; it takes at most the setting ``timeout`` (seconds) and a second more."""

    def __init__(self, config: LlmConfig) -> None:
        """Raises UsageError where the packages or the key are missing. Sends nothing."""
        require(config.name)
        assert config.model is not None
        self._config = config
        self._model = config.model
        self._key = key_of(config)
        self.prices = Prices(config.name, config.model, config.base_url)
        # Now, since the first imports take seconds, which no call's deadline should pay.
        import httpx2
        import pydantic_ai.direct  # noqa: F401
        from pydantic_ai.exceptions import UserError

        try:
            _client(config, self._key, httpx2.AsyncClient(timeout=_limits(None)))
        except UserError as error:
            raise UsageError(f"llm.model={self._model}: {self._said(error)}") from None
        self.prices.snapshot()

    @property
    def name(self) -> str:
        return f"{self._config.name}:{self._model}"

    @property
    def keys(self) -> tuple[str, ...]:
        """What must not be written anywhere."""
        return (self._key,) if self._key else ()

    def complete(self, request: Request) -> Reply:
        """One attempt; raises LlmError, or UsageError for a schema that this model cannot take."""
        limit = request.settings.get("timeout")
        seconds = float(limit) if isinstance(limit, int | float) else None
        future: Future[Reply] = Future()

        def work() -> None:
            try:
                asyncio.run(self._ask(request, seconds, future))
            except BaseException as error:
                # A reply that is there counts, whatever closing the connection said.
                if not future.done():
                    future.set_exception(error)

        threading.Thread(target=work, name=THREAD, daemon=True).start()
        try:
            return future.result(None if seconds is None else seconds + GRACE_S)
        except TimeoutError:
            raise LlmError("no reply before the deadline") from None

    async def _ask(self, request: Request, seconds: float | None, reply: Future[Reply]) -> None:
        import httpx2
        from pydantic_ai.exceptions import AgentRunError, UserError

        start = time.monotonic()
        limits = _limits(seconds)
        try:
            async with asyncio.timeout(seconds):
                async with httpx2.AsyncClient(timeout=limits) as http:
                    client = _client(self._config, self._key, http)
                    response = await self._sent(client, request, limits)
                    reply.set_result(self._reply(response, time.monotonic() - start))
        except TimeoutError:
            raise LlmError("no reply before the deadline") from None
        except AgentRunError as error:
            raise self._failure(error) from None
        except UserError as error:
            raise UsageError(
                f"{self.name} refuses the request ({self._said(error)}); a model without a JSON "
                "mode of its own takes llm.structured=prompt"
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        except Exception as error:
            # Of the provider's library; as it stands it might tell the key.
            raise LlmError(
                f"the client failed: {type(error).__name__}: {self._said(error)}"
            ) from None

    async def _sent(self, client: Client, request: Request, limits: Timeout) -> ModelResponse:
        from pydantic_ai.direct import model_request
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.output import OutputObjectDefinition
        from pydantic_ai.settings import ModelSettings

        messages, parameters = request.messages, ModelRequestParameters()
        schema = request.schema
        # A provider's JSON mode wants an object at the top.
        if schema is not None and (
            self._config.structured == "prompt" or schema.get("type") != "object"
        ):
            messages = _with_schema(messages, schema)
        elif schema is not None:
            wanted = OutputObjectDefinition(
                json_schema=json.loads(json.dumps(schema)), name="reply"
            )
            parameters = ModelRequestParameters(output_mode="native", output_object=wanted)
        given = {k: v for k, v in _settings(self._config, request).items() if v is not None}
        # Said outright, since the libraries' own limits differ: Google's is ten minutes, and
        # Anthropic's refuses long replies. Google takes a number only.
        given["timeout"] = limits.read if self._config.name == "google" else limits
        return await model_request(
            client,
            [_part(message) for message in messages],
            model_settings=ModelSettings(**given, max_retries=0),  # type: ignore[typeddict-item]
            model_request_parameters=parameters,
        )

    def _reply(self, response: ModelResponse, seconds: float) -> Reply:
        from pydantic_ai.messages import TextPart

        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        finish: Finish = "other"
        if response.finish_reason in ("stop", "length"):
            finish = "stop" if response.finish_reason == "stop" else "length"
        return Reply(
            text=redacted(text, self.keys),
            parsed=None,
            model=response.model_name or self._model,
            usage=Usage(response.usage.input_tokens, response.usage.output_tokens),
            cost=self.prices.cost(response.usage, response.model_name),
            seconds=seconds,
            finish=finish,
            id=response.provider_response_id,
        )

    def _failure(self, error: Exception) -> LlmError:
        from pydantic_ai.exceptions import (
            ModelConnectionError,
            ModelHTTPError,
            ModelQuotaExceededError,
        )

        said = self._said(error)
        if isinstance(error, ModelHTTPError):
            status = error.status_code
            # A quota that is used up has the status 429 too, and no waiting helps.
            busy = status in (408, 429) and not isinstance(error, ModelQuotaExceededError)
            return LlmError(
                f"the provider answered {status}: {self._said(error, error.body)}",
                again=busy or status >= 500,
                retry_after=error.retry_after,
            )
        if isinstance(error, ModelConnectionError):
            return self._unreachable(error)
        # It was answered, and so paid: the same again would be paid twice.
        return LlmError(f"the answer is no chat completion: {said}")

    def _unreachable(self, error: Exception) -> LlmError:
        place = self._config.base_url
        where = f" to {place}" if place else ""
        hint = "; is a server running there, and is llm.base_url right?" if place else ""
        return LlmError(f"the connection{where} failed: {self._said(error)}{hint}", again=True)

    def _said(self, error: Exception, body: object = None) -> str:
        """What an error says, as one short line without the key."""
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None and len(causes) < DEEPEST_CAUSE:
            causes.append(causes[-1].__cause__)
        words = dict.fromkeys(str(e).rstrip(".") or type(e).__name__ for e in causes)
        text = _inner_message(body) or ": ".join(words)
        text = " ".join(redacted(text, self.keys).split())
        return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."


def require(name: str) -> None:
    """Raises UsageError where the packages of a door are not installed; imports none of them."""
    extra, package = EXTRAS.get(name, ("llm", "openai"))
    for needed in ("pydantic_ai", package):
        try:
            found = importlib.util.find_spec(needed) is not None
        except ModuleNotFoundError:
            # The parent of a dotted name is absent.
            found = False
        if not found:
            raise UsageError(
                f"llm={name} needs packages that are not installed; type: "
                f"pip install -e '.[{extra}]' -c constraints.txt"
            )


def _client(config: LlmConfig, key: str | None, http: Any) -> Client:
    """The provider's model over a connection of ours."""
    model = config.model or ""
    if config.name == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        place = {} if config.base_url is None else {"base_url": config.base_url}
        return AnthropicModel(
            model, provider=AnthropicProvider(api_key=key or "", http_client=http, **place)
        )
    if config.name == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        provider = GoogleProvider(api_key=key or "", http_client=http, base_url=config.base_url)
        return GoogleModel(model, provider=provider)
    return _chat_client(config, model, key, http)


def _chat_client(config: LlmConfig, model: str, key: str | None, http: Any) -> Client:
    """A model behind chat completions, OpenAI's or a compatible server's."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.ollama import OllamaModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.ollama import OllamaProvider
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
    from pydantic_ai.providers.openrouter import OpenRouterProvider
    from pydantic_ai.providers.vllm import VLLMProvider

    address = config.base_url
    if address is None:
        # Said outright, so that no OPENAI_BASE_URL in the environment sends a key elsewhere.
        address = {
            "openrouter": "https://openrouter.ai/api/v1",
            "vllm": "http://localhost:8000/v1",
            "ollama": "http://localhost:11434/v1",
        }.get(config.name, "https://api.openai.com/v1")
    client = AsyncOpenAI(
        api_key=key or "none", base_url=address, http_client=http, max_retries=0, timeout=None
    )
    if config.name == "openrouter":
        return OpenRouterModel(model, provider=OpenRouterProvider(openai_client=client))
    if config.name == "ollama":
        return OllamaModel(model, provider=OllamaProvider(openai_client=client))
    if config.name == "vllm":
        return OpenAIChatModel(model, provider=VLLMProvider(openai_client=client))
    if config.base_url is not None:
        other = OpenAICompatibleProvider("openai-compatible", openai_client=client)
        return OpenAIChatModel(model, provider=other)
    return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client))


def _limits(seconds: float | None) -> Timeout:
    """A connection's limits: beyond the deadline, which ends the call first, but for opening it."""
    import httpx2

    whole = UNLIMITED_S if seconds is None else seconds + 5
    return httpx2.Timeout(whole, connect=min(CONNECT_S, whole))


def _settings(config: LlmConfig, request: Request) -> dict[str, Any]:
    """Sampling of one request: its own over the configuration's."""
    own: Mapping[str, Any] = {k: v for k, v in request.settings.items() if k != "timeout"}
    return {"temperature": config.temperature, "max_tokens": config.max_tokens, **own}


def _part(message: Message) -> ModelMessage:
    from pydantic_ai.messages import (
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextPart,
        UserPromptPart,
    )

    if message.role == "assistant":
        return ModelResponse(parts=[TextPart(content=message.text)])
    if message.role == "system":
        return ModelRequest(parts=[SystemPromptPart(content=message.text)])
    return ModelRequest(parts=[UserPromptPart(content=message.text)])


def _with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages with the schema said in words at the end of the last one."""
    text = f"{messages[-1].text}\n\n{ONLY_JSON}\n\n{json.dumps(schema)}"
    return (*messages[:-1], Message(messages[-1].role, text))


def _inner_message(body: object) -> str | None:
    """The sentence in a provider's error, wherever it stands."""
    while isinstance(body, Mapping):
        inner = body.get("error") or body.get("message") or body.get("detail")
        body = inner
    return body if isinstance(body, str) and body.strip() else None
