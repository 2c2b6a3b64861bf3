"""What every body of a request has in common, whoever sends it."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Only the keys that are named, each of its own kind: no `true` for 1, no NaN for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
