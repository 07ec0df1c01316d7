"""The five kinds as pydantic models: the one place of their fields, bounds, defaults and rules."""

from folkmoot_core.resources.agent import AgentSpec
from folkmoot_core.resources.council import CouncilSpec
from folkmoot_core.resources.gatepolicy import GatePolicySpec
from folkmoot_core.resources.session import SessionSpec
from folkmoot_core.resources.tenant import ProviderSpec, TenantSpec

__all__ = ["AgentSpec", "CouncilSpec", "GatePolicySpec", "ProviderSpec", "SessionSpec", "TenantSpec"]
