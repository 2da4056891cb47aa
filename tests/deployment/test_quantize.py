"""Which layers stay in float when int8 breaks the tokens."""

from __future__ import annotations

from collections.abc import Sequence

from openeupe.deployment.quantize import leave_out

LAYERS = [f"layer{number}" for number in range(16)]


class Network:
    """Whose tokens suffer from some layers; keeps which were left out at the last writing."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm = harm
        self.written: list[str] = []

    def write(self, left_out: Sequence[str]) -> float:
        self.written = list(left_out)
        return 1.0 - sum(harm for layer, harm in self.harm.items() if layer not in left_out)


def test_the_part_that_breaks_the_tokens_is_left_out_and_no_other() -> None:
    network = Network({"layer3": 0.3, "layer9": 0.001})
    left_out = leave_out(LAYERS, network.write, 0.99)
    assert left_out == ["layer2", "layer3"] == network.written


def test_parts_are_left_out_until_the_limit_is_met() -> None:
    network = Network({"layer3": 0.3, "layer15": 0.1, "layer0": 0.001})
    left_out = leave_out(LAYERS, network.write, 0.99)
    assert left_out == ["layer2", "layer3", "layer14", "layer15"] == network.written


def test_a_hopeless_network_keeps_its_best_try() -> None:
    network = Network(dict.fromkeys(LAYERS, 0.5))
    left_out = leave_out(LAYERS, network.write, 0.99)
    assert len(left_out) == 14
    assert network.written == left_out
