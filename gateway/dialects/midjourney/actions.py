"""The routes /mj/submit/… that act on a task: change, simple-change, action and modal."""

import dataclasses
import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.midjourney import access, buttons, drafts, media_tasks, models, pictures, submission, tasks, view
from gateway.dialects.midjourney.bodies import (
    ActionRequest,
    ChangeRequest,
    ModalRequest,
    SimpleChangeRequest,
    Submission,
)
from gateway.dialects.midjourney.buttons import Action
from gateway.dialects.midjourney.errors import Code, answer, refuse
from gateway.dialects.midjourney.routing import SUBMIT_RESPONSES, midjourney_route, post
from gateway.dialects.midjourney.submission import Draft
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage
from gateway.operations.keep_image import KeepImage
from gateway.tasks.task import Task
from gateway.tasks.task_queue import TaskQueue

router = APIRouter(route_class=midjourney_route, tags=["Midjourney"])

_SIMPLE_CHANGE = re.compile(r"\s*(\S{1,200})\s+(?:([UV])([1-4])|R)\s*", re.IGNORECASE)
_CHANGES = {"UPSCALE": "upsample", "VARIATION": "variation", "U": "upsample", "V": "variation"}
_ZOOMS = {"50": 2.0, "75": 1.5, "100": 1.0}
"""How much smaller a picture becomes, by the number of its button."""
_MODALS = {"custom_zoom": "CUSTOM_ZOOM", "inpaint": "INPAINT"}
_DEFAULT_ZOOM = 2.0


@post(router, "/submit/change", summary="Change a grid", responses=SUBMIT_RESPONSES)
async def change(body: ChangeRequest, request: Request) -> Response:
    """Take a picture out of a grid, vary it, or draw the grid again."""
    if body.action == "REROLL":
        action = Action(name="reroll")
    elif not body.index:
        raise refuse(f"'index' is required for {body.action}: 1 to 4.")
    else:
        action = Action(name=_CHANGES[body.action], index=body.index)
    return await _perform(request, await tasks.find(request, str(body.taskId)), action, body, None)


@post(router, "/submit/simple-change", summary="Change a grid", responses=SUBMIT_RESPONSES)
async def simple_change(body: SimpleChangeRequest, request: Request) -> Response:
    """Do the same as `change`, with a text such as `ID U2`, `ID V3` or `ID R`."""
    found = _SIMPLE_CHANGE.fullmatch(body.content)
    if not found:
        raise refuse("'content' must be the id of a task and U1 to U4, V1 to V4, or R.")
    action = Action(name=_CHANGES[found[2].upper()], index=int(found[3])) if found[2] else Action(name="reroll")
    return await _perform(request, await tasks.find(request, found[1]), action, body, None)


@post(router, "/submit/action", summary="Press a button", responses=SUBMIT_RESPONSES)
async def press(body: ActionRequest, request: Request) -> Response:
    """Do what a button of a task says."""
    parent = await tasks.find(request, str(body.taskId))
    action = buttons.parse(body.customId)
    if action is None:
        raise refuse(f"No button has the 'customId' {body.customId[:100]!r}.")
    if action.task and action.task not in (parent.id, view.shown_id(parent)):
        raise refuse("'customId' belongs to another task than 'taskId'.")
    return await _perform(request, parent, action, body, body.customId)


@post(router, "/submit/modal", summary="Continue a task", responses=SUBMIT_RESPONSES)
async def modal(body: ModalRequest, request: Request) -> Response:
    """Continue a task in the status MODAL with a prompt, and for a region with `maskBase64`."""
    id = str(body.taskId)
    waiting = await tasks.find(request, id)
    if waiting.kind == KeepImage.operation and view.status(waiting) == "SUCCESS":
        return answer(Code.SUCCESS, "Submit success", id)  # some clients confirm every 21, also that of a second U1
    if waiting.labels.get("id") == id and not waiting.labels.get("cancelled"):
        return answer(Code.SUCCESS, "Submit success", id)  # a client that has lost the first response asks again
    if not waiting.labels.get("modal"):
        raise refuse(f"The task {id} waits for no input: its status is {view.status(waiting)}.")
    parent = await tasks.find(request, waiting.labels["parent"])
    index, custom_id = waiting.labels["index"], waiting.labels.get("customId")
    inherited = {"notifyHook": waiting.labels.get("webhook_url"), "state": waiting.labels.get("state")}
    submitted = body.model_copy(update={name: getattr(body, name) or value for name, value in inherited.items()})
    labels = {"id": waiting.id}
    if waiting.labels["action"] == "INPAINT":
        draft = await drafts.inpaint(
            request, parent, index, body.prompt, body.maskBase64, custom_id=custom_id, labels=labels
        )
    else:
        prompt = drafts.parse(body.prompt or waiting.labels.get("prompt"))
        scale = prompt.parameters.get("zoom", _DEFAULT_ZOOM)
        text = body.prompt or waiting.labels.get("prompt") or ""
        draft = await drafts.extend(request, parent, index, scale=scale, text=text, custom_id=custom_id, labels=labels)
    return await submission.submit(request, draft, submitted, tasks.modal_key(waiting.id))


async def _perform(request: Request, parent: Task, action: Action, body: Submission, custom_id: str | None) -> Response:
    """Return the response to an action on a task. Raises `Refusal`, and as `drafts.imagine` does."""
    if view.status(parent) != "SUCCESS":
        raise refuse(f"The task {view.shown_id(parent)} has not succeeded: its status is {view.status(parent)}.")
    if action.name == "bookmark":
        return answer(Code.SUCCESS, "Submit success", view.shown_id(parent))
    if action.name == "upsample":
        return await _keep(request, parent, action.index, body, custom_id)
    if action.name in _MODALS:
        return await _wait_for_input(request, parent, action, body, custom_id)
    return await submission.submit(request, await _draft(request, parent, action, body, custom_id), body)


async def _draft(request: Request, parent: Task, action: Action, body: Submission, custom_id: str | None) -> Draft:
    match action.name:
        case "reroll" | "retry_text":
            return await _again(request, parent, custom_id)
        case "variation" | "low_variation" | "high_variation":
            return await drafts.vary(request, parent, action.index, action.name, custom_id=custom_id)
        case "pan":
            return await drafts.extend(request, parent, action.index, way=action.value, custom_id=custom_id)
        case "zoom":
            scale = _ZOOMS[action.value]
            return await drafts.extend(request, parent, action.index, scale=scale, custom_id=custom_id)
        case "upscale":
            return await media_tasks.upscale(request, parent, action.index, int(action.value), custom_id or "")
        case "animate":
            picture = await pictures.read(request, parent, action.index)
            more = {"custom_id": custom_id, "more": {"parent": parent.id}}
            return await media_tasks.animate(request, parent, picture, {}, **more)
        case _:
            return await _draw_text(request, parent, action, body, custom_id)


async def _again(request: Request, parent: Task, custom_id: str | None) -> Draft:
    """Return the draft of the same request as that of a task, with another seed."""
    queue: TaskQueue = request.app.state.tasks
    operation = await queue.request_of(parent)
    if isinstance(operation, KeepImage):
        raise refuse(f"The task {view.shown_id(parent)} cannot be drawn again.")
    if isinstance(operation, GenerateImage):
        operation = dataclasses.replace(operation, seed=None)
    labels = parent.labels
    return Draft(
        operation=operation,
        action="REROLL" if labels.get("view") != "describe" else "DESCRIBE",
        view=labels.get("view", "none"),
        custom_id=custom_id,
        more={"parent": parent.id},
        **submission.prompts_of(parent),
    )


async def _draw_text(request: Request, parent: Task, action: Action, body: Submission, custom_id: str | None) -> Draft:
    """Return the draft of a grid that draws one of the texts of a task."""
    texts = view.texts_of(parent)
    if not 1 <= action.index <= len(texts):
        raise refuse(f"The task {view.shown_id(parent)} has {len(texts)} texts, no number {action.index}.")
    text = _as_plain_text(texts[action.index - 1])
    return await drafts.imagine(request, text, [], body.botType, custom_id=custom_id, more={"parent": parent.id})


def _as_plain_text(text: str) -> str:
    """Return a text of a model without what a prompt takes for parameters, weights and picture URLs."""
    return re.sub(r"::+", ":", re.sub(r"--+|—", "-", text)).replace("://", ":")


async def _keep(request: Request, parent: Task, index: int, body: Submission, custom_id: str | None) -> Response:
    """Return the task of a picture of a grid: a new one, which has succeeded, or the one that exists already."""
    queue: TaskQueue = request.app.state.tasks
    source = pictures.file_of(parent, index)
    key = f"midjourney upsample {parent.id} {index}"
    if existing := await queue.find_by_key(access.task_owner(request), key):
        properties = {"status": view.status(existing), "imageUrl": view.image_url(existing, request.app.state)}
        return answer(Code.EXISTED, "The task exists already", existing.id, properties)
    seed = parent.outputs[index - 1].facts.get("seed") if parent.outputs else None
    negative = parent.request.get("negative_prompt") or parent.labels.get("negative")
    operation = KeepImage(model=parent.model, image=await pictures.read(request, parent, index), seed=seed)
    draft = Draft(
        operation=operation,
        action="UPSCALE",
        view="single",
        custom_id=custom_id or f"MJ::JOB::upsample::{index}::{view.shown_id(parent)}",
        more={"parent": parent.id, "source": source, "index": index, "negative": negative},
        **submission.prompts_of(parent),
    )
    return answer(Code.SUCCESS, "Submit success", (await submission.create(request, draft, body, key)).id)


async def _wait_for_input(
    request: Request, parent: Task, action: Action, body: Submission, custom_id: str | None
) -> Response:
    """Return a task in the status MODAL, which `submit/modal` continues."""
    pictures.file_of(parent, action.index)
    models.find(request, EditImage, parent.labels.get("botType"), parent.model)
    draft = Draft(
        operation=KeepImage(model=parent.model),
        action=_MODALS[action.name],
        view="none",
        custom_id=custom_id,
        more={"parent": parent.id, "index": action.index, "modal": True},
        **submission.prompts_of(parent),
    )
    # The task that continues it sends the hooks: one of this task could arrive after them.
    task = await submission.create(request, draft, body, reports_end=False)
    properties = {"finalPrompt": task.labels.get("final", ""), "remix": True}
    return answer(Code.EXISTED, "Waiting for window confirm", task.id, properties)
