"""The operator: handlers → reconcile → observe → folkmoot_core.plan → kube → report. It never calls a model."""
