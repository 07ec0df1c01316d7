"""What should exist, as pure functions of manifests and the installation: no clock, no I/O, no randomness.

Called by the operator (which applies, prunes and reports) and by `folkmoot dev` (which starts processes instead).
One module per kind: `tenant.plan`, `agent.plan`, `council.check`, `gatepolicy.check`, `session.order`,
`document.document`, `teardown.next`; `views` parses raw objects, `types` holds the values that pass between.
"""
