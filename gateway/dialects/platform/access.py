"""Platforms: named views of the models, each with its own keys (setting `platforms`)."""

from fastapi import Request
from pydantic import SecretStr

from gateway.errors import ModelNotFound, NotFound
from gateway.http.api_keys import authenticate, match_api_key
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.settings import Platform, Settings
from gateway.tasks.task import owner_id


def authorize(request: Request) -> str:
    """Return the id of the caller, by the keys of the platform that the path names.

    Raises `NotFound` for an unknown platform, and `Unauthorized`.
    """
    return authenticate(request, _keys(request))


def task_owner(request: Request) -> str:
    """Return the id that owns the tasks of this request: each pair of a platform and a key has its own tasks."""
    keys = _keys(request)
    return owner_id(f"{request.path_params['platform']} {match_api_key(request, keys) if keys else ''}")


def find_model(request: Request, name: str, operation: type | None = None) -> Model:
    """Return the model `name` of the request's platform; it must offer `operation` where one is given.

    Raises `ModelNotFound`, `UnsupportedOption` and `Overloaded`, as the catalog does.
    """
    catalog: Catalog = request.app.state.catalog
    platform = _platform(request)
    if platform.models is None:
        return catalog.get(name, operation)
    try:
        if name in platform.models:
            return catalog.get(name, operation)
    except ModelNotFound:
        pass  # its message lists models of other platforms
    known = ", ".join(model.name for model in list_models(request)) or "none"
    raise ModelNotFound(f"The model '{name[:200]}' does not exist. Models: {known}.", param="model")


def list_models(request: Request) -> list[Model]:
    """Return the models of the request's platform that serve requests now, ordered by name. Raises `NotFound`."""
    catalog: Catalog = request.app.state.catalog
    offered = _platform(request).models
    return [model for model in catalog.models() if offered is None or model.name in offered]


def any_platform_requires_key(settings: Settings) -> bool:
    """Return whether at least one platform has keys."""
    return any(_platform_keys(platform, settings) for platform in settings.platforms.values())


def _keys(request: Request) -> list[SecretStr]:
    return _platform_keys(_platform(request), request.app.state.settings)


def _platform_keys(platform: Platform, settings: Settings) -> list[SecretStr]:
    return settings.api_keys if platform.keys is None else platform.keys


def _platform(request: Request) -> Platform:
    settings: Settings = request.app.state.settings
    name: str = request.path_params["platform"]
    if name not in settings.platforms:
        raise NotFound(f"The platform '{name[:64]}' does not exist.", param="platform")
    return settings.platforms[name]
