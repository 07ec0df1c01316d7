"""The ledger entries of a model call: intent before it leaves, outcome after. Pure: time and salts come in.

OpenTelemetry's GenAI names where one exists. No content: prompts and answers are there as salted commitments, and a vendor's
error text is not there at all. Ids are made from call key and run, so that a request made again adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from folkmoot_core.calls import CallAnswer, CallEnvelope
from folkmoot_core.canonical import commit
from folkmoot_core.document import AgentEntry
from folkmoot_core.entries import Actor, Payload, new_entry
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.journal import Call, Opening, Record

MAX_VALUE: Final = 128  # characters of a text that a vendor chose
PROVIDER_NAMES: Final[dict[str, str]] = {
    "Anthropic": "anthropic", "OpenAI": "openai", "Google": "gcp.gemini", "DeepSeek": "deepseek", "Mistral": "mistral_ai",
    "OpenAICompatible": "openai_compatible", "Scripted": "scripted",
}  # fmt: skip
Outcome = Literal["answered", "failed", "in_doubt", "refused"]


@dataclass(frozen=True)
class Context:
    """What all entries of one call share. `agent` and `provider` are None when the document does not know them."""

    name: str
    agent: AgentEntry | None
    provider: ProviderSpec | None
    config: str  # digest of the tenant document in force


def intent_id(key: str, run: int) -> str:
    """Id of the entry that announces a run."""
    return f"call-{key}-{run}-intent"


def outcome_id(key: str, run: int) -> str:
    """Id of the entry that says how a run ended."""
    return f"call-{key}-{run}-outcome"


def intent(context: Context, call: Call, *, salt: bytes, now: float) -> Record:
    """This call is about to leave."""
    content = call.envelope.request.model_dump_json().encode()
    data = {**_common(context, call.envelope, call.key), "folkmoot.run": call.run}
    return _record(context, call, "model.call.intent", data, (salt, content), now)


def answered(context: Context, call: Call, answer: CallAnswer, *, salt: bytes, now: float) -> Record:
    """It came back, and the answer is stored."""
    result = answer.result
    data = {
        **_ended(context, call, "answered"),
        "gen_ai.response.model": result.model_observed[:MAX_VALUE],
        "gen_ai.response.id": result.response_id[:MAX_VALUE],
        "gen_ai.response.finish_reasons": [result.stop],
        "gen_ai.usage.input_tokens": result.usage.input_tokens,
        "gen_ai.usage.output_tokens": result.usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": result.usage.cached_input_tokens,
        "folkmoot.family": answer.family,
    }
    if answer.cost is not None and answer.currency is not None:
        data |= {"folkmoot.cost": answer.cost, "folkmoot.currency": answer.currency}
    return _record(context, call, "model.call.outcome", data, (salt, result.model_dump_json().encode()), now)


def ended(context: Context, call: Call, outcome: Outcome, *, now: float) -> Record:
    """It failed, or nobody knows: the reason is in the row."""
    data = {**_ended(context, call, outcome), "folkmoot.reason": call.reason}
    return _record(context, call, "model.call.outcome", data, None, now)


def refused(context: Context, envelope: CallEnvelope, key: str, reason: str, *, now: float) -> Record:
    """Policy did not let it out. One entry per distinct call and reason, however often it is asked."""
    data = {**_common(context, envelope, key), "folkmoot.outcome": "refused", "folkmoot.reason": reason}
    entry = new_entry(
        "model.call.outcome", _actor(context), id=f"call-{key}-refused-{reason}"[:128], data=data, session=envelope.session,
        config=context.config, now=now,
    )  # fmt: skip
    return Record(entry)


def _record(  # noqa: PLR0913 - the fields of one entry; a holder class would only rename them
    context: Context, call: Call, kind: Any, data: dict[str, Any], opening: tuple[bytes, bytes] | None, now: float
) -> Record:
    payload = None
    if opening is not None:
        salt, content = opening
        payload = Payload(commit=commit(salt, content), size=len(content))
    entry_id = intent_id(call.key, call.run) if kind == "model.call.intent" else outcome_id(call.key, call.run)
    entry = new_entry(
        kind, _actor(context), id=entry_id, data=data, session=call.envelope.session, config=context.config, payload=payload,
        now=now,
    )  # fmt: skip
    return Record(entry, Opening(*opening) if opening is not None else None)


def _actor(context: Context) -> Actor:
    identity = context.agent.identity if context.agent is not None else None
    return Actor(
        kind="agent", id=context.name, seed=identity.seed if identity else "",
        commitment=identity.commitment if identity else "",
    )  # fmt: skip


def _common(context: Context, envelope: CallEnvelope, key: str) -> dict[str, Any]:
    spec = context.provider
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDER_NAMES[spec.type] if spec is not None else "unknown",
        "gen_ai.request.model": envelope.model,
        "gen_ai.request.max_tokens": envelope.request.max_output_tokens,
        "folkmoot.provider": envelope.provider,
        "folkmoot.region": (spec.region or "") if spec is not None else "",
        "folkmoot.call_key": key,
        "folkmoot.task": envelope.task,
        "folkmoot.step": envelope.step,
    }


def _ended(context: Context, call: Call, outcome: Outcome) -> dict[str, Any]:
    run = {"folkmoot.run": call.run, "folkmoot.attempts": call.attempts, "folkmoot.outcome": outcome}
    return {**_common(context, call.envelope, call.key), **run}
