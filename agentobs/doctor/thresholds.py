"""From where on the doctor finds fault."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentobs.errors import InvalidValueError

_NONE = timedelta(0)


class Thresholds(BaseModel):
    """The bounds of the checks. Raises InvalidValueError for a bad one.

    `keep` and `keep_payload` are what `agentobs maintain` is given, None where nothing expires.
    `check_timeout` is how long one check may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keep: timedelta | None = Field(default=None, ge=timedelta(days=1))
    keep_payload: timedelta | None = Field(default=None, ge=timedelta(days=1))
    check_timeout: timedelta = Field(default=timedelta(seconds=2), gt=_NONE)
    months_ahead: int = Field(default=2, ge=0, le=24)
    default_rows: int = Field(default=1_000, ge=0)
    rollup_lag: timedelta = Field(default=timedelta(days=1, hours=12), ge=_NONE)
    dirty_hours: int = Field(default=24, ge=0)
    transaction_age: timedelta = Field(default=timedelta(minutes=5), ge=_NONE)
    idle_transaction_age: timedelta = Field(default=timedelta(minutes=1), ge=_NONE)
    lock_age: timedelta = Field(default=timedelta(seconds=5), ge=_NONE)
    clock_skew: timedelta = Field(default=timedelta(seconds=5), gt=_NONE)
    dead_rows: int = Field(default=10_000, ge=0)
    dead_share: float = Field(default=0.2, ge=0, le=1)
    bloat_share: float = Field(default=0.5, ge=0, le=1)
    bloat_bytes: int = Field(default=64 * 2**20, ge=0)
    unused_for: timedelta = Field(default=timedelta(days=30), ge=_NONE)
    unused_bytes: int = Field(default=16 * 2**20, ge=0)

    def __init__(self, **values: Any) -> None:
        """Check the bounds; raise InvalidValueError that names the field."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            field = ".".join([type(self).__name__, *map(str, fault["loc"])])
            raise InvalidValueError(field, f"is refused: {fault['msg']}") from None
        if self.keep and self.keep_payload and self.keep_payload >= self.keep:
            raise InvalidValueError("keep_payload", "must be less than keep: the rows hold it")


DEFAULT_THRESHOLDS = Thresholds()
