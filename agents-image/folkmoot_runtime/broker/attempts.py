"""The attempts of one run: wait for a free place, send, and act on what `reactions` says until there is an outcome.

Called by `engine` alone. Writes nothing itself: `before` and `after` tell the journal that a request is about to be in
flight, and that it provably was refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from folkmoot_core.calls import CallEnvelope, ModelResult
from folkmoot_core.resources.common import seconds
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError
from folkmoot_runtime.broker.providers.registry import Unusable
from folkmoot_runtime.broker.reactions import Again, Doubtful, Failed, react
from folkmoot_runtime.broker.slots import Slots

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """The provider's answer."""

    result: ModelResult


class Providers(Protocol):
    """What attempts need of the registry."""

    def use(self, spec: ProviderSpec) -> AbstractAsyncContextManager[Provider]: ...


Outcome = Answered | Failed | Doubtful
Told = Callable[[], Awaitable[None]]


@dataclass
class Attempts:
    """Runs calls against providers. `deadline` bounds one run with all its attempts and waits, in seconds."""

    registry: Providers
    slots: Slots
    deadline: float
    jitter: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, spec: ProviderSpec, call: CallEnvelope, before: Told, after: Told) -> Outcome:
        """Attempts until there is an outcome; time spent in the queue counts towards the deadline."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.deadline
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.slots.hold(spec.name, spec.concurrency), self.registry.use(spec) as provider:
                    timeout = min(float(seconds(spec.timeout)), end - loop.time())
                    if timeout <= 0:
                        return Failed("DeadlineExceeded", f"no free place at provider {spec.name} within {self.deadline:g} s")
                    await before()
                    try:
                        # The SDK's timeouts bound silence; this bounds an answer that trickles.
                        async with asyncio.timeout(timeout):
                            return Answered(await provider.complete(call.model, call.request, timeout))
                    except TimeoutError:
                        raise ProviderError("timeout", f"no answer within {timeout:g} s") from None
            except ProviderError as error:
                reaction = react(error, attempt, end - loop.time(), self.jitter())
            except Unusable as error:
                return Failed(error.reason, error.message)
            if not isinstance(reaction, Again):
                return reaction
            log.info("attempt will be repeated", extra={"provider": spec.name, "attempt": attempt, "wait": reaction.wait})
            await after()
            await self.sleep(reaction.wait)
