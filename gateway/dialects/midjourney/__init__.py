"""The Midjourney tasks of midjourney-proxy, `/mj` and `/{mode}/mj`, on models of one's own."""

from gateway.dialects.dialect import Dialect
from gateway.dialects.midjourney import actions, submission, submissions, tasks, view
from gateway.dialects.midjourney.errors import MIDJOURNEY_ERRORS

DIALECT = Dialect(
    name=submission.DIALECT_NAME,
    prefixes=("/mj", "/{mode}/mj"),
    routers=(submissions.router, actions.router, tasks.router, tasks.picture_router),
    errors=MIDJOURNEY_ERRORS,
    render_task=view.render,
)
