"""Schemas as client libraries write them."""

import datetime
import decimal
import enum
import ipaddress
import uuid
from typing import Annotated, Any, Literal

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, Json, SecretStr, StringConstraints, conlist

from tests.unit.llm.json_schema.keywords import KEYWORDS
from tests.unit.llm.json_schema.library_schemas import OPENAPI, ZOD


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog", "hound"] = "dog"
    tricks: list[str] = []


class Bird(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["bird"]
    wings: Annotated[int, Field(ge=0, le=2)]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog | Bird, Field(discriminator="kind")]
    others: list[Annotated[Cat | Annotated[Dog | Bird, Field(discriminator="kind")], Field(discriminator="kind")]] = []


class Tree(BaseModel):
    name: str
    children: list["Tree"] = Field(default=[], max_length=2)
    parent: "Tree | None" = None


class Maps(BaseModel):
    literal: dict[Literal["p", "q"], int]
    by_colour: dict[Colour, float]
    by_id: dict[uuid.UUID, Cat]
    by_number: dict[int, str]
    by_length: dict[Annotated[str, StringConstraints(min_length=2, max_length=3)], int]
    by_pattern: dict[Annotated[str, StringConstraints(pattern="^a+$")], int]


class Meeting(BaseModel):
    day: datetime.date
    at: datetime.time
    begins: datetime.datetime
    ends: datetime.datetime | None
    takes: datetime.timedelta


class Kinds(BaseModel):
    d: decimal.Decimal
    d2: Annotated[decimal.Decimal, Field(max_digits=5, decimal_places=2)]
    few: set[Literal["x", "y", "z"]]
    flags: frozenset[bool]
    pair: tuple[int, str]
    row: tuple[int, ...]
    raw: bytes
    secret: SecretStr
    at: datetime.datetime
    span: datetime.timedelta
    day: datetime.date
    time: datetime.time
    ip: ipaddress.IPv4Address
    ip6: ipaddress.IPv6Address
    url: AnyUrl
    text: Json[Any]
    big: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
    share: Annotated[float, Field(gt=0, lt=1e20, multiple_of=0.5)]
    pet: Cat | None = None
    whatever: Any = None
    few_numbers: conlist(int, min_length=1, max_length=3)  # type: ignore[valid-type]


PYDANTIC = {model.__name__: model.model_json_schema() for model in (Owner, Tree, Maps, Meeting, Kinds, Cat, Bird)}
CORPUS: dict[str, Any] = PYDANTIC | ZOD | OPENAPI | KEYWORDS
