"""A real gateway with additional routes for tests of its tasks. Run as a module."""

import dataclasses

import uvicorn
from fastapi import Request

from gateway.app import create_app
from gateway.operations.generate_image import GenerateImage
from gateway.settings import Settings
from gateway.tasks.task_queue import TaskQueue

settings = Settings()
app = create_app(settings)
OWNER = "anybody"


@app.post("/tests/tasks")
async def submit_task(request: Request):
    tasks: TaskQueue = request.app.state.tasks
    key = request.headers["idempotency-key"]
    url = request.headers.get("webhook-url")
    return dataclasses.asdict(await tasks.submit(GenerateImage(**await request.json()), OWNER, key, url))


@app.get("/tests/tasks")
async def list_tasks(request: Request):
    tasks: TaskQueue = request.app.state.tasks
    found = await tasks.list(OWNER, limit=1000)
    return [dataclasses.asdict(task) for task in found]


@app.get("/tests/tasks/{id}")
async def get_task(id: str, request: Request):
    tasks: TaskQueue = request.app.state.tasks
    return dataclasses.asdict(await tasks.get(id, OWNER))


@app.delete("/tests/tasks/{id}")
async def cancel_task(id: str, request: Request):
    tasks: TaskQueue = request.app.state.tasks
    return dataclasses.asdict(await tasks.cancel(id, OWNER))


@app.get("/tests/files/{file}")
async def get_file_url(file: str, request: Request):
    return request.app.state.files.url(file, str(request.base_url))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=settings.port, loop="uvloop", log_config=None, access_log=False)
