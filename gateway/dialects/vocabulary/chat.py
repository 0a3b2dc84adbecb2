"""What a chat asks for: https://platform.openai.com/docs/api-reference/chat/create"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Request
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.route import give_way
from gateway.dialects.vocabulary import functions, tools
from gateway.dialects.vocabulary.functions import WireFunctionChoice
from gateway.dialects.vocabulary.keeping import Keeping
from gateway.dialects.vocabulary.messages import Message
from gateway.dialects.vocabulary.reading import Reading, WriteDown
from gateway.dialects.vocabulary.sampling import (
    STREAM_OPTIONS,
    NoList,
    Nothing,
    NotTrue,
    SamplingFields,
    is_empty,
    is_false,
    nothing,
    refuse,
)
from gateway.dialects.vocabulary.structure import ResponseFormat
from gateway.dialects.vocabulary.tools import FunctionDefinition, FunctionName, ToolDefinition, WireToolChoice
from gateway.endpoints import Model
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.apart import beside
from gateway.http.counting import check_written
from gateway.operations import transcribe
from gateway.operations.chat import Chat
from gateway.operations.chat import Message as Turn
from gateway.operations.transcribe import Transcribe

LONGEST_ARGUMENTS = 1_000_000
"""Bytes of what goes to the template beside the messages and tools."""
VALUES = 150_000
"""JSON values of a body: room for 4,096 messages of 20 values each, and for 128 tools of 500."""


class CreateChatCompletionRequest(SamplingFields):
    """The body of a chat request. Fields not named here are ignored; docs/dialects.md lists which are common."""

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
            **STREAM_OPTIONS,
        }
    )

    messages: Annotated[list[Annotated[Message, AfterValidator(give_way)]], Field(min_length=1, max_length=4096)]
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
    # Known, and not carried: a value that asks for something is refused by name.
    audio: Nothing = None
    chat_template: Nothing = None
    add_special_tokens: NotTrue = None
    documents: NoList = None
    echo: NotTrue = None
    mm_processor_kwargs: NoList = None
    modalities: Annotated[Any, WithJsonSchema({"enum": [["text"], [], None]})] = None
    moderation: Nothing = None
    web_search_options: Nothing = None

    @property
    def legacy(self) -> bool:
        """Whether tools have their older names, and so have calls in the answer."""
        return bool(self.functions) or isinstance(self.function_call, FunctionName)


NOT_CARRIED: Mapping[str, Callable[[Any], bool]] = {
    "modalities": lambda value: value in (["text"], []),
    "add_special_tokens": is_false,
    "audio": nothing,
    "chat_template": nothing,
    "documents": is_empty,
    "echo": is_false,
    "mm_processor_kwargs": is_empty,
    "moderation": nothing,
    "web_search_options": nothing,
}


def refuse_not_carried(body: CreateChatCompletionRequest) -> None:
    """Raise `UnsupportedOption` for the first field of `body` that asks for what is not carried."""
    refuse(body, NOT_CARRIED)


async def understand(body: CreateChatCompletionRequest, model: Model, request: Request, *, bare: bool = False) -> Chat:
    """Return what `body` asks of `model`; what its messages refer to is fetched. With `bare`, pictures may be base64.

    Raises `InvalidRequest` and `UnsupportedOption`, and `ClientGone` as soon as the client hangs up.
    """
    catalog: Catalog = request.app.state.catalog
    reading = Reading(
        request.app.state.media,
        sees="image" in model.modalities,
        write_down=_writing_down(catalog, request),
        bare=bare,
        keeping=Keeping(request),
        longest=request.app.state.settings.prompt_max_characters,
        asked=request.state.trace,
    )
    # A caller who hangs up while pictures are fetched is noticed, too.
    turns = await reading.turns(body.messages, partial(delivery.whole, request))
    return await beside(request.state.trace, lambda: parse(body, turns))


def _writing_down(catalog: Catalog, request: Request) -> WriteDown | None:
    """What writes down a sound for a model that only reads; None where no such model is served."""
    speech = catalog.offering(Transcribe)
    if speech is None:
        return None

    async def write_down(samples: bytes) -> str:
        asked = Transcribe(model=speech.name, audio=samples)
        return await transcribe.gather(catalog.run(speech, asked, request.state.trace))

    return write_down


def parse(body: CreateChatCompletionRequest, turns: tuple[Turn, ...]) -> Chat:
    """Return the operation that `body` asks for. Raises `InvalidRequest` and `UnsupportedOption`."""
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    if body.chat_template_kwargs:
        check_written(body.chat_template_kwargs, LONGEST_ARGUMENTS, param="chat_template_kwargs")
    if body.legacy:
        for name in ("tools", "tool_choice"):
            if getattr(body, name):
                raise InvalidRequest(f"'{name}' cannot stand beside 'functions', its older name.", param=name)
        definitions, choice = functions.parse(body.functions or [], body.function_call)
    else:
        definitions, choice = tools.parse(body.tools or [], body.tool_choice)
    structure = body.response_format.structure() if body.response_format else None
    sampling = body.sampling(limit, structure, logprobs=(body.top_logprobs or 0) if body.logprobs else None)
    return Chat(
        model=body.model,
        messages=turns,
        sampling=sampling,
        tools=definitions,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and not body.legacy,
        template_arguments=body.chat_template_kwargs or {},
        continue_final=_continues(body),
        whole=not body.streams,
    )


def _continues(body: CreateChatCompletionRequest) -> bool:
    """Whether the last message is to be continued: vLLM's pair of fields says so twice."""
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
