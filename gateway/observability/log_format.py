"""The format of log lines: those of structlog and of the standard library leave alike."""

import logging
from typing import Literal

import structlog

from gateway.worker_context import WorkerContext


def configure_logging(
    format: Literal["json", "console"], level: str, worker_context: WorkerContext | None = None
) -> None:
    """Write the log lines of structlog and the standard library to standard error in one format.

    With several workers each line has the field `worker`, the index of the worker.
    """

    def add_worker(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if worker_context is not None and worker_context.folder is not None:
            event.setdefault("worker", worker_context.worker_index)
        return event

    shared: list[structlog.typing.Processor] = [
        add_worker,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format == "json"
        else [structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
