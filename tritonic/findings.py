"""The results of `tritonic doctor`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `missing` keeps Tritonic from running here; `note` does not."""

    what: str
    state: Literal["good", "note", "missing"]
    detail: str
    remedy: str = ""
