"""The routes /mj/submit/… that begin a task from a prompt or from pictures, and /mj/insight-face/swap."""

from fractions import Fraction

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.midjourney import drafts, media_tasks, models, pictures, shortening, submission
from gateway.dialects.midjourney.bodies import (
    BlendRequest,
    DescribeRequest,
    EditsRequest,
    ImagineRequest,
    MotionRequest,
    ShortenRequest,
    SwapRequest,
    UploadRequest,
)
from gateway.dialects.midjourney.errors import Code, answer, refuse
from gateway.dialects.midjourney.routing import SUBMIT_RESPONSES, midjourney_route, post
from gateway.dialects.midjourney.submission import Draft
from gateway.http.request_images import RequestImages
from gateway.media import sniffing
from gateway.operations.swap_face import SwapFace

router = APIRouter(route_class=midjourney_route, tags=["Midjourney"])

_RATIOS = {"PORTRAIT": Fraction(2, 3), "SQUARE": Fraction(1), "LANDSCAPE": Fraction(3, 2)}
_MIN_BLENDED, _MAX_BLENDED = 2, 5


@post(router, "/submit/imagine", summary="Draw a grid of pictures", responses=SUBMIT_RESPONSES)
async def imagine(body: ImagineRequest, request: Request) -> Response:
    """Queue a grid of four pictures of what `prompt` describes, optionally from the pictures of `base64Array`."""
    submission.check(request, body, body.prompt)
    given = [*(body.base64Array or []), *([body.base64] if body.base64 else [])]
    draft = await drafts.imagine(request, body.prompt, given, body.botType)
    return await submission.submit(request, draft, body)


@post(router, "/submit/blend", summary="Blend pictures", responses=SUBMIT_RESPONSES)
async def blend(body: BlendRequest, request: Request) -> Response:
    """Queue a grid between two to five pictures."""
    submission.check(request, body)
    given = body.base64Array or []
    if not _MIN_BLENDED <= len(given) <= _MAX_BLENDED:
        raise refuse(f"'base64Array' must have {_MIN_BLENDED} to {_MAX_BLENDED} pictures, not {len(given)}.")
    draft = await drafts.blend(request, given, _RATIOS[body.dimensions or "SQUARE"], body.botType)
    return await submission.submit(request, draft, body)


@post(router, "/submit/describe", summary="Describe a picture", responses=SUBMIT_RESPONSES)
async def describe(body: DescribeRequest, request: Request) -> Response:
    """Queue four descriptions of a picture. They are in `properties.finalPrompt` of the task."""
    submission.check(request, body)
    model = models.find_seeing(request)
    picture = await pictures.load_one(request, body.base64 or body.link, "base64")
    return await submission.submit(request, media_tasks.describe(picture, model, body.language), body)


@post(router, "/submit/shorten", summary="Analyse a prompt", responses=SUBMIT_RESPONSES)
async def shorten(body: ShortenRequest, request: Request) -> Response:
    """Weigh the words of a prompt, and return a task that has them, and up to five shorter prompts."""
    submission.check(request, body, body.prompt)
    draft = await shortening.shorten(request, body.prompt)
    return await submission.submit(request, draft, body)


@post(router, "/submit/edits", summary="Edit a picture", responses=SUBMIT_RESPONSES)
async def edits(body: EditsRequest, request: Request) -> Response:
    """Queue a grid that changes `image` by `prompt`, with `maskBase64` only where it is white or transparent."""
    submission.check(request, body, body.prompt)
    given = [body.image] if isinstance(body.image, str) else body.image or body.base64Array or []
    if len(given) != 1 or not given[0]:
        raise refuse(f"'image' must be one picture, not {len(given)}.")
    draft = await drafts.edit(request, body.prompt, given[0], body.maskBase64, body.botType)
    return await submission.submit(request, draft, body)


@post(router, "/submit/video", summary="Make a video", responses=SUBMIT_RESPONSES)
async def video(body: MotionRequest, request: Request) -> Response:
    """Queue a video of what `prompt` describes that begins with `image`, or that continues another one."""
    submission.check(request, body, body.prompt)
    return await submission.submit(request, await media_tasks.video(request, body), body)


@post(router, "/submit/upload-discord-images", summary="Store pictures", responses=SUBMIT_RESPONSES)
async def upload(body: UploadRequest, request: Request) -> Response:
    """Store pictures, and return their URLs as `result`, for prompts."""
    if not body.base64Array:
        raise refuse("'base64Array' must not be empty.")
    images = await pictures.load(request, body.base64Array, "base64Array")
    stored = RequestImages(request)
    urls = [await stored.store_file(image, sniffing.sniff(image).media_type) for image in images]
    return answer(Code.SUCCESS, "Submit success", urls)


@post(router, "/insight-face/swap", summary="Swap faces", responses=SUBMIT_RESPONSES)
async def swap(body: SwapRequest, request: Request) -> Response:
    """Queue the picture `targetBase64` with the face of `sourceBase64`."""
    submission.check(request, body)
    model = models.find(request, SwapFace)
    source = await pictures.load_one(request, body.sourceBase64 or body.sourceUrl, "sourceBase64")
    target = await pictures.load_one(request, body.targetBase64 or body.targetUrl, "targetBase64")
    operation = SwapFace(model=model.name, source=source, target=target)
    draft = Draft(operation=operation, action="SWAP_FACE", view="single")
    return await submission.submit(request, draft, body)
