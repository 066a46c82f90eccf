"""Every policy: no drift, no retraining; drift everywhere for long, retraining; the reason in words."""

from dataclasses import replace

import pytest

from cellwright.families import member, members
from cellwright.lifecycle.policies._contract import Situation
from cellwright.params import Monitor

NAMES = members("cellwright.lifecycle.policies")
PARAMS = Monitor(min_sites=3, settle_h=48, cooldown_h=100)
CLEAR = Situation(now_h=1000, first_drift_h=900, drifted_sites=50, last_retraining_h=None)


def decide(name: str, situation: Situation):
    return member("cellwright.lifecycle.policies", name, what="policy").decide(situation, PARAMS)


@pytest.mark.parametrize("name", NAMES)
def test_no_drift_no_retraining(name):
    found = decide(name, Situation(now_h=1000, first_drift_h=None, drifted_sites=0, last_retraining_h=None))
    assert not found.retrain
    assert found.reason


@pytest.mark.parametrize("name", NAMES)
def test_drift_everywhere_for_long_is_retrained_for(name):
    assert decide(name, CLEAR).retrain


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_title(name):
    assert member("cellwright.lifecycle.policies", name, what="policy").title


@pytest.mark.parametrize(
    ("changed", "retrain", "says"),
    [
        ({"drifted_sites": 2}, False, "2 of the 3 sites"),
        ({"drifted_sites": 3}, True, "3 sites have drifted for 100 h"),
        ({"first_drift_h": 953}, False, "1 h more telemetry"),
        ({"first_drift_h": 952}, True, "for 48 h"),
        ({"last_retraining_h": 901}, False, "99 h ago; 1 h to wait"),
        ({"last_retraining_h": 900}, True, ""),
    ],
)
def test_cooldown_at_its_limits(changed, retrain, says):
    found = decide("cooldown", replace(CLEAR, **changed))
    assert found.retrain is retrain
    assert says in found.reason
