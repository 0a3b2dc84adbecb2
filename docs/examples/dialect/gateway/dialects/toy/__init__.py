"""A dialect that shares nothing with OpenAI's: its own bodies, errors, events and header of the key."""

from gateway.dialects.dialect import Dialect
from gateway.dialects.toy import chat
from gateway.dialects.toy.errors import TOY_ERRORS, Oops

DIALECT = Dialect(
    name="toy",
    prefixes=("/toy",),
    routers=(chat.router,),
    errors=TOY_ERRORS,
    stream_events=(chat.Word, chat.End, Oops),
)
