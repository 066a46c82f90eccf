"""Cost KPIs worked out by hand."""

import numpy as np
import pytest

from cellwright.kpis import (
    cost_per_1000_forecasts,
    cost_train,
    energy_per_1000_j,
    jitter_ms,
    latency_p50_ms,
    latency_p99_ms,
    onnx_throughput_per_s,
    train_energy_j,
)
from cellwright.kpis._contract import Costs, Runtime
from cellwright.params import Prices
from cellwright.results import EnergyReading, Reading

PRICES = Prices(energy_per_kwh=0.5, cpu_core_hour=0.1, gpu_hour=2.0)


def reading(cpu_j: float | None, gpu_j: float | None = None, cpu_s: float = 0.0) -> EnergyReading:
    def part(joules: float | None) -> Reading:
        return Reading(energy_j=joules, source=None if joules is None else "measured")

    return EnergyReading(
        cpu=part(cpu_j),
        ram=part(None),
        gpu=part(gpu_j),
        duration_s=1,
        cpu_s=cpu_s,
        idle_w=None,
        co2_g=None,
        shared=False,
        meter="a test",
    )


def test_latency_percentiles_are_milliseconds():
    runtime = Runtime(np.arange(1, 102) / 1000, 1.0)  # 1 … 101 ms
    assert latency_p50_ms.compute(Costs(torch=runtime)) == pytest.approx(51)
    assert latency_p99_ms.compute(Costs(torch=runtime)) == pytest.approx(100)
    assert onnx_throughput_per_s.compute(Costs(torch=runtime)) is None


def test_energy_adds_up_the_parts_that_are_known():
    assert train_energy_j.compute(Costs(train_energy=reading(3.0, 4.0))) == 7
    assert train_energy_j.compute(Costs(train_energy=reading(None, 4.0))) == 4
    assert train_energy_j.compute(Costs(train_energy=reading(None))) is None


def test_energy_of_a_thousand_forecasts_is_scaled_from_those_metered():
    assert energy_per_1000_j.compute(Costs(forecast_energy=reading(2.0), forecasts_metered=500)) == 4
    assert energy_per_1000_j.compute(Costs(forecast_energy=reading(2.0))) is None


def test_the_price_of_training():
    costs = Costs(train_cpu_s=3600, train_gpu_s=1800, train_energy=reading(3.6e6), prices=PRICES)
    assert cost_train.compute(costs) == pytest.approx(0.1 + 1.0 + 0.5)


def test_a_price_of_unknown_energy_is_unknown_unless_energy_is_free():
    assert cost_train.compute(Costs(train_cpu_s=3600, prices=PRICES)) is None
    free = PRICES.model_copy(update={"energy_per_kwh": 0.0})
    assert cost_train.compute(Costs(train_cpu_s=3600, prices=free)) == pytest.approx(0.1)


def test_the_price_of_a_thousand_forecasts():
    costs = Costs(forecast_energy=reading(3.6, cpu_s=3.6), forecasts_metered=1000, prices=PRICES)
    # 1,000 forecasts: 0.001 h · 0.1 + 1e-6 kWh · 0.5
    assert cost_per_1000_forecasts.compute(costs) == pytest.approx(1e-4 + 5e-7)


def test_jitter_is_how_far_the_slow_calls_lie_behind_the_usual_one():
    assert jitter_ms.compute(Costs(torch=Runtime(np.arange(1, 102) / 1000, 1.0))) == pytest.approx(100 - 51)
    assert jitter_ms.compute(Costs(torch=Runtime(np.full(20, 0.003), 1.0))) == pytest.approx(0)
