"""Chat requests: https://platform.openai.com/docs/api-reference/chat/create"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, ConfigDict, Field

from gateway.dialects.openai.wire import legacy_functions, tools
from gateway.dialects.openai.wire.audio_chat import AudioOutput
from gateway.dialects.openai.wire.legacy_functions import WireFunctionChoice
from gateway.dialects.openai.wire.message_parser import MessageParser
from gateway.dialects.openai.wire.messages import Message
from gateway.dialects.openai.wire.sampling import (
    STREAM_OPTIONS_SCHEMA,
    SamplingFields,
    UnsupportedField,
    UnsupportedFlag,
    UnsupportedList,
    is_empty,
    is_false,
    never_neutral,
    reject_unsupported_fields,
)
from gateway.dialects.openai.wire.structured_outputs import ResponseFormat
from gateway.dialects.openai.wire.tools import FunctionDefinition, FunctionName, ToolDefinition, WireToolChoice
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.json_limits import check_json_size
from gateway.http.media_references import MediaReferences
from gateway.http.offload import offload_if_large
from gateway.http.wire_model import yield_gil
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.models.transcription import find_transcriber
from gateway.operations.chat import Chat
from gateway.operations.chat import Message as Turn

MAX_TEMPLATE_ARGUMENTS_BYTES = 1_000_000
"""Bytes of `chat_template_kwargs` as JSON."""
MAX_JSON_VALUES = 150_000
"""JSON values of a body: room for 4,096 messages of 20 values each, and for 128 tools of 500."""


class CreateChatCompletionRequest(SamplingFields):
    """The body of a chat request. Fields not named here are ignored; docs/dialects.md lists the common ones."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is the capital of France?"}],
                    "max_completion_tokens": 32,
                },
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
                    "tools": [
                        {
                            "type": "function",
                            "function": {
                                "name": "get_weather",
                                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                            },
                        }
                    ],
                    "tool_choice": "required",
                    "stream": True,
                },
            ],
            **STREAM_OPTIONS_SCHEMA,
        }
    )

    messages: Annotated[list[Annotated[Message, AfterValidator(yield_gil)]], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = None
    tool_choice: WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Field(max_length=128)] | None = None
    function_call: WireFunctionChoice | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(max_length=8)] | None = None
    audio: AudioOutput | None = None
    # Known and not supported: a request with a value that has an effect is refused, and the error names the field.
    chat_template: UnsupportedField = None
    add_special_tokens: UnsupportedFlag = None
    documents: UnsupportedList = None
    echo: UnsupportedFlag = None
    mm_processor_kwargs: UnsupportedList = None
    moderation: UnsupportedField = None
    web_search_options: UnsupportedField = None

    @property
    def uses_legacy_functions(self) -> bool:
        """True for a request with `functions`, the older name of tools; its answer has `function_call`."""
        return bool(self.functions) or isinstance(self.function_call, FunctionName)


UNSUPPORTED_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "add_special_tokens": is_false,
    "chat_template": never_neutral,
    "documents": is_empty,
    "echo": is_false,
    "mm_processor_kwargs": is_empty,
    "moderation": never_neutral,
    "web_search_options": never_neutral,
}


def reject_unsupported(body: CreateChatCompletionRequest) -> None:
    """Raise `UnsupportedOption` for the first field of `body` with an unsupported value."""
    reject_unsupported_fields(body, UNSUPPORTED_FIELDS)


async def parse_request(
    body: CreateChatCompletionRequest, model: Model, request: Request, *, allow_base64: bool = False
) -> Chat:
    """Return the operation that `body` asks `model` for, with everything loaded that its messages refer to.

    With `allow_base64`, images may be plain base64. Raises `InvalidRequest`, `UnsupportedOption`, `RequestTooLarge` and
    `Overloaded`, and `ClientDisconnected` as soon as the client disconnects.
    """
    catalog: Catalog = request.app.state.catalog
    parser = MessageParser(
        MediaReferences.of_request(request, find_transcriber(catalog, request.state.trace)),
        supports_images="image" in model.modalities,
        allow_base64=allow_base64,
        max_characters=request.app.state.settings.prompt_max_characters,
    )
    turns = await parser.parse(body.messages)
    return await offload_if_large(request.state.trace, lambda: build_operation(body, turns))


def build_operation(body: CreateChatCompletionRequest, turns: tuple[Turn, ...]) -> Chat:
    """Return the operation of `body`. Raises `InvalidRequest`, `UnsupportedOption` and `RequestTooLarge`."""
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    if body.chat_template_kwargs:
        check_json_size(body.chat_template_kwargs, MAX_TEMPLATE_ARGUMENTS_BYTES, param="chat_template_kwargs")
    if body.uses_legacy_functions:
        for name in ("tools", "tool_choice"):
            if getattr(body, name):
                raise InvalidRequest(
                    f"'{name}' cannot be used together with 'functions', the older form of tools.", param=name
                )
        definitions, choice = legacy_functions.parse(body.functions or [], body.function_call)
    else:
        definitions, choice = tools.parse(body.tools or [], body.tool_choice)
    structure = body.response_format.to_structure() if body.response_format else None
    sampling = body.sampling(limit, structure, logprobs=(body.top_logprobs or 0) if body.logprobs else None)
    return Chat(
        model=body.model,
        messages=turns,
        sampling=sampling,
        tools=definitions,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and not body.uses_legacy_functions,
        template_arguments=body.chat_template_kwargs or {},
        continue_final_message=_continues_final_message(body),
        non_streaming=not body.wants_stream,
    )


def _continues_final_message(body: CreateChatCompletionRequest) -> bool:
    """Return whether the model continues the last message. vLLM has two fields for it, which must agree."""
    if body.add_generation_prompt is False and not body.continue_final_message:
        raise UnsupportedOption(
            "'add_generation_prompt' can be false only where 'continue_final_message' is true.",
            param="add_generation_prompt",
        )
    if not body.continue_final_message:
        return False
    if body.add_generation_prompt:
        raise InvalidRequest(
            "'continue_final_message' and 'add_generation_prompt' cannot both be true.", param="continue_final_message"
        )
    if body.messages[-1].role != "assistant":
        raise InvalidRequest(
            "'continue_final_message' needs a last message with the role 'assistant'.", param="continue_final_message"
        )
    return True
