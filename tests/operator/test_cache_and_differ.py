"""The cache under relists and echoes; the comparison that decides whether an apply is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import names
from folkmoot_operator.cache import Cache
from folkmoot_operator.differ import amount, difference, with_intent
from folkmoot_operator.kinds import CONFIG_MAP, DEPLOYMENT, Key


def thing(name="a", version="1", namespace="n", **labels):
    return {
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": version, "labels": labels, "managedFields": [1]}
    }


def test_indexes_follow_changes_and_drops():
    cache = Cache()
    owner = {names.LABEL_OWNER_UID: "u1"}
    assert cache.put(CONFIG_MAP, thing(version="1", **owner))
    assert not cache.put(CONFIG_MAP, thing(version="1", **owner))
    assert [key for _, obj in cache.labelled(names.LABEL_OWNER_UID, "u1") for key in [obj["metadata"]["name"]]] == ["a"]
    assert "managedFields" not in cache.get(CONFIG_MAP, Key("n", "a"))["metadata"]
    cache.put(CONFIG_MAP, thing(version="2", **{names.LABEL_OWNER_UID: "u2"}))
    assert cache.labelled(names.LABEL_OWNER_UID, "u1") == []
    assert cache.drop(CONFIG_MAP, Key("n", "a"))
    assert cache.labelled(names.LABEL_OWNER_UID, "u2") == []
    assert cache.objects(CONFIG_MAP, "n") == []


def test_a_relist_drops_the_stale_and_believes_the_watch_about_what_happened_meanwhile():
    cache = Cache()
    for name in ("kept", "stale", "deleted", "changed"):
        cache.put(CONFIG_MAP, thing(name))
    relist = cache.relist(CONFIG_MAP)
    cache.put(CONFIG_MAP, thing("born", "5"))
    cache.drop(CONFIG_MAP, Key("n", "deleted"))
    cache.put(CONFIG_MAP, thing("changed", "6"))
    relist.page([thing("kept"), thing("deleted"), thing("changed", "1"), thing("missed", "3")])
    assert [o["metadata"]["name"] for o in relist.finish()] == ["stale"]
    assert [o["metadata"]["name"] for o in cache.objects(CONFIG_MAP)] == ["born", "changed", "kept", "missed"]
    assert cache.get(CONFIG_MAP, Key("n", "changed"))["metadata"]["resourceVersion"] == "6"
    assert relist.changed == {Key("n", "stale"), Key("n", "missed")}


def test_an_abandoned_relist_drops_nothing():
    cache = Cache()
    cache.put(CONFIG_MAP, thing())
    relist = cache.relist(CONFIG_MAP)
    relist.page([])
    relist.abandon()
    assert cache.count(CONFIG_MAP) == 1


def test_echoes_older_than_our_own_write_are_skipped_until_the_watch_has_caught_up():
    cache = Cache()
    cache.put(CONFIG_MAP, thing(version="1"))
    cache.wrote(CONFIG_MAP, thing(version="9"))
    assert not cache.put(CONFIG_MAP, thing(version="4"))
    assert cache.get(CONFIG_MAP, Key("n", "a"))["metadata"]["resourceVersion"] == "9"
    cache.put(CONFIG_MAP, thing(version="9"))
    assert cache.put(CONFIG_MAP, thing(version="3"))  # a restored etcd counts from behind: nothing is frozen
    cache.wrote(CONFIG_MAP, thing(version="10"))
    relist = cache.relist(CONFIG_MAP)
    relist.page([thing(version="2")])
    relist.finish()
    assert cache.get(CONFIG_MAP, Key("n", "a"))["metadata"]["resourceVersion"] == "2"


POD = {
    "containers": [
        {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}, "ports": [{"containerPort": 1}]}
    ]
}


def deployment(**spec):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec}


def live_of(intent, **change):
    """As the API server would give it back: defaults added, quantities canonical, lists with more in them."""
    spec = {**intent["spec"], "revisionHistoryLimit": 10, **change}
    return {
        **intent,
        "spec": spec,
        "status": {"replicas": 1},
        "metadata": {**intent["metadata"], "uid": "u", "resourceVersion": "1"},
    }


def test_defaults_and_canonical_quantities_are_no_difference():
    intent = with_intent(deployment(replicas=1, template={"spec": POD}, empty={}, none=[]))
    container = {
        **POD["containers"][0],
        "resources": {"limits": {"cpu": "1", "memory": "1073741824"}},
        "terminationMessagePath": "/dev/x",
    }
    container["ports"] = [{"containerPort": 1, "protocol": "TCP"}]
    sidecar = {"name": "mesh"}
    live = live_of(intent, template={"spec": {"containers": [sidecar, container], "restartPolicy": "Always"}})
    live["spec"].pop("empty")
    live["spec"].pop("none")
    assert difference(intent, live) == ""


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"replicas": 2}, "spec.replicas"),
        ({"template": {"spec": {"containers": []}}}, "spec.template.spec.containers[c]"),
        (
            {"template": {"spec": {"containers": [{**POD["containers"][0], "image": "evil"}]}}},
            "spec.template.spec.containers[c].image",
        ),
    ],
)
def test_drift_is_named(change, where):
    intent = with_intent(deployment(replicas=1, template={"spec": POD}))
    assert difference(intent, live_of(intent, **change)) == where


def test_a_label_added_to_a_selector_is_drift_and_a_label_added_to_metadata_is_none():
    policy = {"metadata": {"name": "a", "labels": {"ours": "1"}}, "spec": {"podSelector": {"matchLabels": {"app": "x"}}}}
    intent = with_intent(policy)
    narrowed = live_of(intent, podSelector={"matchLabels": {"app": "x", "nobody": "here"}})
    assert difference(intent, narrowed) == "spec.podSelector.matchLabels.nobody"
    by_expression = live_of(
        intent, podSelector={"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "y", "operator": "Exists"}]}
    )
    assert difference(intent, by_expression) == "spec.podSelector.matchExpressions"
    labelled = live_of(intent)
    labelled["metadata"]["labels"] = {"ours": "1", "theirs": "2"}
    assert difference(intent, labelled) == ""


def test_another_intent_is_a_difference_even_if_all_fields_agree():
    before, after = with_intent(deployment(replicas=1, paused=True)), with_intent(deployment(replicas=1))
    assert difference(after, live_of(before)).startswith("metadata.annotations")
    assert difference(before, live_of(before)) == ""
    assert with_intent(deployment(replicas=1)) == after


def test_a_false_that_the_server_leaves_out_is_none_but_one_that_it_keeps_is_drift():
    intent = with_intent(deployment(publishNotReadyAddresses=False))
    assert difference(intent, {**intent, "spec": {}}) == ""
    intent = with_intent(deployment(automountServiceAccountToken=False))
    assert difference(intent, {**intent, "spec": {}}) == "spec.automountServiceAccountToken"


def test_text_that_looks_like_a_quantity_is_text_elsewhere():
    intent = with_intent({"metadata": {"name": "c"}, "data": {"v": "1000m"}})
    assert difference(intent, {**intent, "data": {"v": "1"}}) == "data.v"


@given(st.integers(0, 10**6))
def test_amounts(number):
    assert amount(f"{number}k") == amount(str(number * 1000))
    assert amount(f"{number}Ki") == amount(number * 1024)
    assert amount("1.2.3") is None
    assert amount(True) is None
    assert DEPLOYMENT.path("n", "d", "status") == "/apis/apps/v1/namespaces/n/deployments/d/status"
