"""Serializes the dequeues of the gateways that share one SQLite file.

DBOS counts the running tasks of a queue, and then takes the next ones. Python's `sqlite3` takes SQLite's write lock at
the first statement that writes, which is after the count. Two gateways could therefore count the same tasks, and
together run more than the queue permits.
"""

import threading
from typing import Any

from sqlalchemy import Connection, event


def lock_dequeues(system_database: Any) -> None:
    """Let each dequeue of DBOS's system database hold SQLite's write lock from its first statement on."""
    dequeue = system_database.start_queued_workflows
    in_dequeue = threading.local()

    @event.listens_for(system_database.engine, "begin")
    def lock(connection: Connection) -> None:
        if getattr(in_dequeue, "active", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def locked_dequeue(*args: Any, **options: Any) -> Any:
        in_dequeue.active = True
        try:
            return dequeue(*args, **options)
        finally:
            in_dequeue.active = False

    system_database.start_queued_workflows = locked_dequeue
