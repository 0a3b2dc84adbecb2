"""Webhooks in the database of tasks. Each attempt to send one is a workflow of DBOS in a queue of their own.

The first attempt is stored in the transaction that stores its task, and is parked: delayed until the task has ended,
whichever gateway ends it, and however. So no event is lost, also where gateways are killed.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy
from dbos import DBOSClient, EnqueueOptions, WorkflowSerializationFormat

from gateway.tasks.database import Database
from gateway.tasks.webhooks import Delivery, first_delivery_id

QUEUE_NAME = "tritonic-webhooks"
WORKFLOW_NAME = "tritonic.webhook"

_PARKED_SECONDS = 100 * 365 * 86400.0
"""Delay of an attempt whose task has not ended. Those that wait after a failure have hours at most."""
_MAX_RELEASED = 100
"""Webhooks that are released in one call, which has a timeout."""

Call = Callable[..., Awaitable[Any]]
"""Calls a blocking function in a thread, with a timeout. Raises `Overloaded` and `StorageFull`."""


class WebhookStore:
    """The webhooks of one database. Methods raise what `call` raises."""

    def __init__(
        self,
        database: Database,
        engine: sqlalchemy.Engine | None,
        client: DBOSClient,
        call: Call,
        version: str,
        final_statuses: list[str],
    ) -> None:
        """`engine` connects to Postgres; None: SQLite. Tasks with one of `final_statuses` have ended."""
        self._client = client
        self._call = call
        self._version = version
        self._owns_engine = engine is None
        self._engine = sqlalchemy.create_engine(database.url) if engine is None else engine
        table = f"{'' if self._owns_engine else 'dbos.'}workflow_status"
        quoted = ", ".join(f"'{status}'" for status in final_statuses)
        # DBOS's index of delayed workflows bounds the work.
        self._due_query = sqlalchemy.text(
            f"SELECT webhook.workflow_uuid FROM {table} AS webhook LEFT JOIN {table} AS task"
            " ON task.workflow_uuid = replace(webhook.workflow_uuid, 'webhook_', 'task_')"
            f" WHERE webhook.status = 'DELAYED' AND webhook.name = '{WORKFLOW_NAME}'"
            f" AND webhook.delay_until_epoch_ms > :parked AND (task.status IS NULL OR task.status IN ({quoted}))"
            f" LIMIT {_MAX_RELEASED}"
        )

    def park(self, connection: sqlalchemy.Connection, delivery: Delivery) -> None:
        """Add the first attempt, in the transaction that adds its task. Blocks; raises the errors of the database."""
        options = self._options(delivery, _PARKED_SECONDS)
        self._client.enqueue_in_transaction(connection, options, delivery.to_json())

    async def add(self, delivery: Delivery, wait: float) -> None:
        """Add an attempt that is made after `wait` seconds. An attempt with the same id stays."""
        await self._call(self._client.enqueue, self._options(delivery, wait), delivery.to_json())

    async def find_url(self, task_id: str) -> str | None:
        """Return the URL of the webhook of a task; None if it has none."""
        rows = await self._call(self._client.list_workflows, workflow_ids=[first_delivery_id(task_id)])
        if not rows or rows[0].input is None:
            return None
        url: str = rows[0].input["args"][0]["url"]
        return url

    async def delete(self, task_id: str) -> None:
        """Delete all attempts to send the webhook of a task, those to come and those that were made."""
        rows = await self._call(
            self._client.list_workflows,
            workflow_id_prefix=first_delivery_id(task_id),
            name=WORKFLOW_NAME,
            load_input=False,
            load_output=False,
        )
        if rows:
            await self._call(self._client.delete_workflows, [row.workflow_id for row in rows])

    async def release_due(self) -> None:
        """Let the parked attempts begin whose tasks have ended."""
        while await self._call(self._release_due) == _MAX_RELEASED:
            pass

    def close(self) -> None:
        """Close the connections."""
        if self._owns_engine:
            self._engine.dispose()

    def _release_due(self) -> int:
        with self._engine.connect() as connection:
            parked = int((time.time() + _PARKED_SECONDS / 2) * 1000)
            ids = connection.execute(self._due_query, {"parked": parked}).scalars().all()
        for id in ids:
            self._client.set_workflow_delay(id, delay_seconds=0)
        return len(ids)

    def _options(self, delivery: Delivery, wait: float) -> EnqueueOptions:
        return {
            "workflow_name": WORKFLOW_NAME,
            "queue_name": QUEUE_NAME,
            "workflow_id": delivery.id,
            "queue_partition_key": delivery.owner,
            "authenticated_user": delivery.owner,
            "app_version": self._version,
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
            "delay_seconds": wait,
        }
