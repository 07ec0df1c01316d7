"""The stage on which the demo and the e2e scenarios play: cluster, images, charts, simulator, tenants. Test equipment.

`run` (the demo) and e2e/scenarios drive it; it holds no expectations of its own but waits with a limit and says what it
waited for. Everything goes through the faces that a person has: e2e/cluster, kubectl, helm, folkmoot.
"""
