"""Short-lived bus credentials: what an agent asks of the router's door and gets. wiring.md §1."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CredentialRequest(BaseModel):
    """`public_key`: raw Ed25519 key (32 bytes), base64; the router checks this agent's message signatures with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    public_key: str = Field(min_length=44, max_length=44)


class CredentialAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    username: str
    password: str
    expires: int  # epoch seconds; ask again before
