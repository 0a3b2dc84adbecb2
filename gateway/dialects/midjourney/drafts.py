"""Drafts of tasks that draw pictures: from prompts, from pictures of requests, and from pictures of other tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from gateway.dialects.midjourney import access, models, pictures, prompts
from gateway.dialects.midjourney.buttons import View
from gateway.dialects.midjourney.errors import refuse
from gateway.dialects.midjourney.prompts import Prompt, PromptError
from gateway.dialects.midjourney.submission import Draft
from gateway.media.compositions import Compositions
from gateway.model_card.card import ModelCard
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import Effort, GenerateImage
from gateway.tasks.task import Task

NUM_PICTURES = 4
"""Pictures of a grid."""
VARIATION_STRENGTHS = {"variation": 0.6, "low_variation": 0.4, "high_variation": 0.8}
"""Part of the denoising steps that run again, by the action."""
BLEND_STRENGTH = 0.6
_IMAGE_WEIGHT_STRENGTH = 0.25
"""How much of the steps an image weight (`--iw`, 0 to 3) of 1 saves."""
_MIN_STRENGTH = 0.1
_EFFORTS: dict[float, Effort] = {0.25: "low", 0.5: "low", 1: "medium", 2: "high", 4: "high"}
_EFFECTIVE = frozenset({"seed", "quality", "draft", "fast", "relax", "turbo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The options of a prompt: keyword arguments of the operation that all its pictures share, and remarks."""

    prompt: Prompt
    options: dict[str, Any]
    notes: tuple[str, ...]


def parse(prompt: str | None) -> Prompt:
    """Return a parsed prompt. Raises `Refusal`."""
    try:
        return prompts.parse(prompt or "")
    except PromptError as error:
        raise refuse(str(error)) from None


def style(
    request: Request, prompt: Prompt, card: ModelCard, *, has_picture: bool, sized: frozenset[str] = frozenset({"ar"})
) -> Style:
    """Return the options of a prompt for a model, and remarks about parameters that have no effect with it.

    `sized` are the parameters that decide about the size of the pictures.
    """
    values = dict(prompt.parameters)
    effective = _EFFECTIVE | sized
    options: dict[str, Any] = {"prompt": prompt.text, "effort": _effort(request, prompt)}
    notes = []
    if "seed" in values:
        options["seed"] = values["seed"]
    if prompt.negative:
        if card.has_input("negative_prompt"):
            options["negative_prompt"] = prompt.negative
            effective |= {"no"}
        else:
            notes.append("This model cannot leave things out of a picture.")
    if "ar" in values and "ar" in sized:
        width, height = models.size_of_ratio(values["ar"], card.image)
        options |= {"width": width, "height": height}
        if abs(width / height / float(values["ar"]) - 1) > 0.1:
            notes.append(f"--ar has no effect: this model draws {width}x{height}.")
    if has_picture:
        effective |= {"iw"}
        weight = values.get("iw", 1.0)
        options["strength"] = max(_MIN_STRENGTH, 1 - _IMAGE_WEIGHT_STRENGTH * weight)
    idle = [f"--{name}" for name in values if name not in effective]
    idle += ["::"] if prompt.has_weights else []
    if idle:
        notes.append(f"No effect with this model: {', '.join(idle)}.")
    return Style(prompt=prompt, options=options, notes=tuple(notes))


async def imagine(
    request: Request, text: str | None, given: Sequence[str], bot: str | None, *, action: str = "IMAGINE", **more: Any
) -> Draft:
    """Return the draft of a grid from a prompt, and from pictures of the field `base64Array`.

    `more` are further fields of the draft. Raises `Refusal`, and as `pictures.load` does.
    """
    prompt = parse(text)
    references = [*given, *prompt.images]
    if not prompt.text and not references:
        raise refuse("'prompt' must not be empty.")
    model = models.find(request, EditImage if references else GenerateImage, bot)
    found = style(request, prompt, model.card, has_picture=bool(references))
    count = min(NUM_PICTURES, model.card.image.max_images)
    options = {**found.options, "model": model.name, "n": count}
    images = await pictures.load(request, references, "base64Array" if given else "prompt") if references else []
    notes = found.notes
    operation: GenerateImage
    if len(images) > 1:
        size = (options.get("width"), options.get("height"))
        images = [await _mix(request, images, size if all(size) else await pictures.size_of(images[0]), "base64Array")]
    operation = EditImage(**options, images=tuple(images)) if images else GenerateImage(**options)
    return _draft(operation, prompt, text or "", notes, action=action, **more)


async def blend(request: Request, given: Sequence[str], ratio: Any, bot: str | None) -> Draft:
    """Return the draft of a grid between pictures: the model redraws their mean. Raises as `imagine` does."""
    model = models.find(request, EditImage, bot)
    images = await pictures.load(request, given, "base64Array")
    width, height = models.size_of_ratio(ratio, model.card.image)
    operation = EditImage(
        model=model.name,
        prompt="",
        images=(await _mix(request, images, (width, height), "base64Array"),),
        strength=BLEND_STRENGTH,
        n=min(NUM_PICTURES, model.card.image.max_images),
        width=width,
        height=height,
        effort=access.effort(request),
    )
    return Draft(operation=operation, action="BLEND", view=_view(operation))


async def edit(request: Request, text: str | None, reference: str, mask: str | None, bot: str | None) -> Draft:
    """Return the draft of a grid that changes a picture by a prompt, inside of a mask if there is one.

    Raises as `imagine` does.
    """
    prompt = parse(text)
    if not prompt.text:
        raise refuse("'prompt' must not be empty.")
    model = models.find(request, EditImage, bot)
    found = style(request, prompt, model.card, has_picture=not mask)
    image = await pictures.load_one(request, reference, "image")
    options = {**found.options, "model": model.name, "n": min(NUM_PICTURES, model.card.image.max_images)}
    if mask:
        options["mask"] = await _mask(request, mask, image)
    return _draft(EditImage(**options, images=(image,)), prompt, text or "", found.notes, action="EDITS")


async def vary(request: Request, parent: Task, index: int, name: str, *, custom_id: str | None) -> Draft:
    """Return the draft of a grid of variations of a picture. `name` is that of the action. Raises as `imagine` does."""
    action = {"low_variation": "LOW_VARIATION", "high_variation": "HIGH_VARIATION"}.get(name, "VARIATION")
    picture = await pictures.read(request, parent, index)
    return _redraw(request, parent, action, custom_id, images=(picture,), strength=VARIATION_STRENGTHS[name])


async def extend(
    request: Request,
    parent: Task,
    index: int,
    *,
    way: str = "",
    scale: float = 0,
    text: str | None = None,
    custom_id: str | None,
    **more: Any,
) -> Draft:
    """Return the draft of a grid that continues a picture beyond its edges: in one direction, or on all sides.

    `way` is the direction, or else `scale` tells how much smaller the picture becomes. `text` replaces the prompt. The
    pixels of the picture itself stay exactly as they are in the canvas. Raises as `imagine` does.
    """
    picture = await pictures.read(request, parent, index)
    model = models.find(request, EditImage, parent.labels.get("botType"), parent.model)
    size, limits = await pictures.size_of(picture), model.card.image
    frame, box = models.canvas(way, size, limits) if way else models.zoomed(scale, size, limits)
    compositions: Compositions = request.app.state.media.compositions
    canvas = await compositions.canvas(picture, frame, box, param="taskId", caller=request.state.trace.caller)
    action = "PAN" if way else "CUSTOM_ZOOM" if text is not None else "ZOOM"
    sides = {"width": frame[0], "height": frame[1]}
    return _redraw(request, parent, action, custom_id, text, images=(canvas,), **sides, **more)


async def inpaint(
    request: Request,
    parent: Task,
    index: int,
    text: str | None,
    mask: str | None,
    *,
    custom_id: str | None,
    **more: Any,
) -> Draft:
    """Return the draft of a grid that changes a picture inside of a mask. Raises as `imagine` does."""
    if not mask:
        raise refuse("'maskBase64' must not be empty: paint what may change white, or make it transparent.")
    picture = await pictures.read(request, parent, index)
    made = await _mask(request, mask, picture)
    return _redraw(request, parent, "INPAINT", custom_id, text, images=(picture,), mask=made, **more)


def _redraw(
    request: Request,
    parent: Task,
    action: str,
    custom_id: str | None,
    text: str | None = None,
    /,
    **options: Any,
) -> Draft:
    """Return the draft of a grid with `options` and, unless `text` replaces it, the prompt of a task."""
    bot = parent.labels.get("botType")
    model = models.find(request, EditImage, bot, parent.model)
    shown = text or parent.labels.get("prompt", "")
    more = options.pop("labels", {})
    fields: dict[str, Any]
    notes: tuple[str, ...] = ()
    if text:
        prompt = parse(text)
        sized = frozenset({"zoom"}) if action == "CUSTOM_ZOOM" else frozenset()
        found = style(request, prompt, model.card, has_picture=False, sized=sized)
        fields, notes = found.options, found.notes
    else:
        prompt = Prompt(text=parent.labels.get("text", ""))
        fields = {"prompt": prompt.text, "effort": access.effort(request)}
        if negative := parent.request.get("negative_prompt") or parent.labels.get("negative"):
            fields["negative_prompt"] = negative
    count = min(NUM_PICTURES, model.card.image.max_images)
    operation = EditImage(model=model.name, n=count, **{**fields, **options})
    final = prompt.final if text else parent.labels.get("final", shown)
    return Draft(
        operation=operation,
        action=action,
        view=_view(operation),
        prompt=shown,
        final=final,
        text=prompt.text,
        notes=notes,
        custom_id=custom_id,
        more={"parent": parent.id, **more},
    )


def _draft(operation: GenerateImage, prompt: Prompt, text: str, notes: tuple[str, ...], **more: Any) -> Draft:
    shown = {"prompt": text, "final": prompt.final, "text": prompt.text, "notes": notes}
    return Draft(operation=operation, view=_view(operation), **{**shown, **more})


def _view(operation: GenerateImage) -> View:
    return "grid" if operation.n > 1 else "single"


def _effort(request: Request, prompt: Prompt) -> Effort:
    """Return the effort of a prompt: of its quality, of its own mode, or of the mode in the path."""
    values = prompt.parameters
    if "quality" in values:
        return _EFFORTS[values["quality"]]
    if "draft" in values:
        return "low"
    named = next((access.effort_of_mode(name) for name in ("turbo", "fast", "relax") if name in values), None)
    return named or access.effort(request)


async def _mix(request: Request, images: Sequence[bytes], size: Any, param: str) -> bytes:
    compositions: Compositions = request.app.state.media.compositions
    return await compositions.mixture(images, size, param=param, caller=request.state.trace.caller)


async def _mask(request: Request, mask: str, picture: bytes) -> bytes:
    given = await pictures.load_one(request, mask, "maskBase64")
    compositions: Compositions = request.app.state.media.compositions
    size = await pictures.size_of(picture)
    return await compositions.mask(given, size, param="maskBase64", caller=request.state.trace.caller)
