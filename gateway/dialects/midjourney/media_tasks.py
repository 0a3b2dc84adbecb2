"""Drafts of tasks that make no grid: descriptions, videos and larger pictures."""

import base64
from typing import Any

from fastapi import Request

from gateway.dialects.midjourney import drafts, models, pictures, tasks, view
from gateway.dialects.midjourney.bodies import MotionRequest
from gateway.dialects.midjourney.errors import refuse
from gateway.dialects.midjourney.submission import Draft, prompts_of
from gateway.dialects.openai.wire import video_inputs, video_tasks
from gateway.dialects.openai.wire.videos import CreateVideoRequest
from gateway.models.servers import Model
from gateway.operations.describe_image import DescribeImage
from gateway.operations.generate_video import GenerateVideo
from gateway.operations.upscale_image import UpscaleImage
from gateway.tasks.task import Task

NUM_TEXTS = 4
_INSTRUCTION = (
    "Describe this image in one sentence, as a prompt from which an image generator would draw it: what it shows, the "
    "colours, the background and the style. Answer with the prompt alone."
)
_TEMPERATURE = 0.8
_MAX_TOKENS = 128
_VIDEO_PROMPT = "the picture in motion"
"""The prompt of a video whose request has a picture alone."""


def describe(picture: bytes, model: Model, language: str | None = None) -> Draft:
    """Return the draft of four descriptions of a picture."""
    instruction = f"{_INSTRUCTION} Write it in the language {language}." if language else _INSTRUCTION
    operation = DescribeImage(
        model=model.name,
        image=picture,
        prompt=instruction,
        n=NUM_TEXTS,
        max_tokens=_MAX_TOKENS,
        temperature=_TEMPERATURE,
    )
    return Draft(operation=operation, action="DESCRIBE", view="describe")


async def video(request: Request, body: MotionRequest) -> Draft:
    """Return the draft of a video, or of one that continues another. Raises `Refusal`, and as `pictures.load` does."""
    prompt = drafts.parse(body.prompt)
    notes = [f"No effect: {name}." for name in ("motion", "endImage", "loop") if getattr(body, name)]
    shown = {"prompt": body.prompt or "", "final": prompt.final, "text": prompt.text, "view": "video"}
    model = models.find(request, GenerateVideo, body.botType)
    fields: dict[str, Any] = {"prompt": prompt.text} if prompt.text else {}
    fields |= {name: prompt.parameters[name] for name in ("seed",) if name in prompt.parameters}
    fields |= {"negative_prompt": prompt.negative} if prompt.negative else {}
    if body.taskId:
        parent = await tasks.find(request, str(body.taskId))
        if parent.labels.get("view") != "video":
            picture = await pictures.read(request, parent, (body.index or 0) + 1)
            own = shown if prompt.text else {}
            return await animate(
                request, parent, picture, fields, notes=tuple(notes), more={"parent": parent.id}, **own
            )
        return await _continue(request, parent, model, fields, tuple(notes), shown)
    reference = body.image or next(iter(prompt.images), None)
    if not prompt.text and not reference:
        raise refuse("'prompt' and 'image' must not both be empty.")
    if reference:
        image = await pictures.load_one(request, reference, "image" if body.image else "prompt")
        fields["input_reference"] = base64.b64encode(image).decode()
    asked = CreateVideoRequest.model_validate({"prompt": _VIDEO_PROMPT, **fields, "model": model.name})
    operation = await video_tasks.generation(asked, model, model.name, request)
    return Draft(operation=operation, action="VIDEO", notes=tuple(notes), **shown)  # type: ignore[arg-type]


async def animate(request: Request, parent: Task, picture: bytes, fields: dict[str, Any], **more: Any) -> Draft:
    """Return the draft of a video that begins with a picture of another task. Raises as `video` does."""
    model = models.find(request, GenerateVideo)
    text = fields.get("prompt") or parent.labels.get("text") or _VIDEO_PROMPT
    reference = base64.b64encode(picture).decode()
    asked = CreateVideoRequest.model_validate(
        {**fields, "prompt": text, "model": model.name, "input_reference": reference}
    )
    operation = await video_tasks.generation(asked, model, model.name, request)
    return Draft(operation=operation, action="VIDEO", **{**prompts_of(parent), "view": "video", **more})


async def upscale(request: Request, parent: Task, index: int, scale: int, custom_id: str) -> Draft:
    """Return the draft of a picture with `scale` times the width and height. Raises as `video` does."""
    model = models.find(request, UpscaleImage)
    picture = await pictures.read(request, parent, index)
    return Draft(
        operation=UpscaleImage(model=model.name, image=picture, scale=scale),
        action="UPSCALE",
        view="single",
        custom_id=custom_id,
        more={"parent": parent.id},
        **prompts_of(parent),
    )


async def _continue(
    request: Request, parent: Task, model: Model, fields: dict[str, Any], notes: tuple[str, ...], shown: dict[str, Any]
) -> Draft:
    if view.status(parent) != "SUCCESS" or not parent.outputs:
        raise refuse(f"The task {view.shown_id(parent)} has no video: its status is {view.status(parent)}.")
    asked = CreateVideoRequest.model_validate({"prompt": _VIDEO_PROMPT, **fields, "model": model.name})
    operation = video_tasks.parse(asked, model, model.name, request)
    spool = await video_inputs.receive_stored(parent.outputs[0].file, request)
    continued = await video_inputs.add_last_frame(operation, spool, request, model, param="taskId")
    return Draft(operation=continued, action="VIDEO_EXTEND", notes=notes, more={"parent": parent.id}, **shown)
