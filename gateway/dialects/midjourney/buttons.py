"""Buttons of tasks: their `customId`s, in the published grammar, and the actions that these name."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage
from gateway.operations.generate_video import GenerateVideo
from gateway.operations.upscale_image import UpscaleImage

View: TypeAlias = Literal["grid", "single", "describe", "shorten", "video", "none"]
"""The kind of a task's result, which decides about its buttons."""

DIRECTIONS = ("left", "right", "up", "down")
_ARROWS = {"left": "⬅️", "right": "➡️", "up": "⬆️", "down": "⬇️"}
_DIGITS = ("1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣")
_ANIMATIONS = ("animate_high", "animate_low")
_JOB = re.compile(r"MJ::JOB::([a-z0-9_]{1,40})::([0-4])::([^:]{1,200})(?:::SOLO)?")
_OUTPAINT = re.compile(r"MJ::Outpaint::(50|75|100)::1::([^:]{1,200})(?:::SOLO)?")
_MODAL = re.compile(r"MJ::(CustomZoom|Inpaint)::(?:1::)?([^:]{1,200})(?:::SOLO)?")
_TEXT = re.compile(r"MJ::Job::(PicReader|PromptAnalyzer)::([1-5])(?:::.{0,200})?")
_UPSCALE_JOB = re.compile(r"upsample_v[0-9a-z]{1,4}_([24])x(?:_(?:subtle|creative))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The action of a button. `index` is the number of a picture or text, from 1; `value` depends on the action.

    The names are `upsample`, `variation`, `reroll`, `low_variation`, `high_variation`, `pan` (`value`: the direction),
    `zoom` (`value`: 50 for twice the view, 75 for one and a half times, 100 for the same), `custom_zoom`, `inpaint`,
    `upscale` (`value`: the scale), `animate` (`value`: the motion), `text`, `retry_text`, and `bookmark`.
    """

    name: str
    index: int = 1
    value: str = ""
    task: str = ""


def parse(custom_id: str) -> Action | None:
    """Return the action that a `customId` names; None for one of another form."""
    if custom_id == "MJ::BOOKMARK" or custom_id.startswith("MJ::BOOKMARK::"):
        return Action(name="bookmark")
    if custom_id.startswith("MJ::Picread::Retry"):
        return Action(name="retry_text")
    if found := _OUTPAINT.fullmatch(custom_id):
        return Action(name="zoom", value=found[1], task=found[2])
    if found := _MODAL.fullmatch(custom_id):
        return Action(name="custom_zoom" if found[1] == "CustomZoom" else "inpaint", task=found[2])
    if found := _TEXT.fullmatch(custom_id):
        return Action(name="text", index=int(found[2]))
    if not (found := _JOB.fullmatch(custom_id)):
        return None
    name, index, task = found[1], int(found[2]), found[3]
    if name == "reroll":
        return Action(name="reroll", task=task)
    if index == 0:
        return None
    if name in ("upsample", "variation", "low_variation", "high_variation"):
        return Action(name=name, index=index, task=task)
    if name.startswith("pan_") and name[4:] in DIRECTIONS:
        return Action(name="pan", index=index, value=name[4:], task=task)
    if name in _ANIMATIONS:
        return Action(name="animate", index=index, value=name.removeprefix("animate_"), task=task)
    if scale := _UPSCALE_JOB.fullmatch(name):
        return Action(name="upscale", index=index, value=scale[1], task=task)
    return None


def mint(task: str, view: View, count: int, operations: Collection[str]) -> list[dict[str, Any]]:
    """Return the buttons of a completed task with `count` pictures or texts.

    `operations` are those that models offer now: there are no buttons for others.
    """
    can_edit = EditImage.operation in operations
    match view:
        case "grid":
            upsample = [_button(f"MJ::JOB::upsample::{i}::{task}", label=f"U{i}") for i in range(1, count + 1)]
            vary = [_button(f"MJ::JOB::variation::{i}::{task}", label=f"V{i}") for i in range(1, count + 1)]
            again = _button(f"MJ::JOB::reroll::0::{task}::SOLO", emoji="🔄")
            return [*upsample, again, *(vary if can_edit else [])]
        case "single":
            found = []
            if UpscaleImage.operation in operations:
                found += [
                    _button(f"MJ::JOB::upsample_v5_{scale}x::1::{task}::SOLO", "⏫", f"Upscale ({scale}x)")
                    for scale in (2, 4)
                ]
            if can_edit:
                found += _edit_buttons(task)
            if GenerateVideo.operation in operations:
                found += [
                    _button(f"MJ::JOB::{name}::1::{task}::SOLO", "🎞️", f"Animate ({name[8:].title()} motion)")
                    for name in _ANIMATIONS
                ]
            return [*found, _button("MJ::BOOKMARK", "❤️", style=2)]
        case "describe":
            texts = [_button(f"MJ::Job::PicReader::{i}", _DIGITS[i - 1]) for i in range(1, min(count, 4) + 1)]
            again = _button("MJ::Picread::Retry", "🔄")
            return [*(texts if GenerateImage.operation in operations else []), again]
        case "shorten" if GenerateImage.operation in operations:
            return [_button(f"MJ::Job::PromptAnalyzer::{i}", _DIGITS[i - 1]) for i in range(1, min(count, 5) + 1)]
        case _:
            return []


def _edit_buttons(task: str) -> list[dict[str, Any]]:
    return [
        _button(f"MJ::JOB::low_variation::1::{task}::SOLO", "🪄", "Vary (Subtle)"),
        _button(f"MJ::JOB::high_variation::1::{task}::SOLO", "🪄", "Vary (Strong)"),
        _button(f"MJ::Inpaint::1::{task}::SOLO", "🖌️", "Vary (Region)"),
        _button(f"MJ::Outpaint::50::1::{task}::SOLO", "🔍", "Zoom Out 2x"),
        _button(f"MJ::Outpaint::75::1::{task}::SOLO", "🔍", "Zoom Out 1.5x"),
        _button(f"MJ::CustomZoom::1::{task}", "🔍", "Custom Zoom"),
        *(_button(f"MJ::JOB::pan_{way}::1::{task}::SOLO", _ARROWS[way]) for way in DIRECTIONS),
    ]


def _button(custom_id: str, emoji: str = "", label: str = "", style: int = 2) -> dict[str, Any]:
    return {"customId": custom_id, "emoji": emoji, "label": label, "style": style, "type": 2}
