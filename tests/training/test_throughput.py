import pytest

from tests.models.small import D_MODEL, VOCAB, small_config
from titans_eqx.training.throughput import Throughput, known_peak, training_flops

LENGTH = 8


def test_a_token_id_more_costs_its_row_of_the_head_in_three_passes():
    few, many = (
        training_flops(small_config(vocab_size=VOCAB + more), LENGTH) for more in (0, 5)
    )
    assert few is not None
    assert many is not None
    assert many - few == 3 * 2 * LENGTH * D_MODEL * 5


def test_rates_are_those_of_one_device_and_of_its_peak():
    model = small_config()
    flops = training_flops(model, LENGTH)
    assert flops is not None
    throughput = Throughput(model=model, n_devices=2, peak=1e6)
    rates = throughput.rates({(4, LENGTH): 3}, seconds=0.5)
    assert rates["tokens_per_second"] == 4 * LENGTH * 3 / 0.5
    assert rates["flops_per_second"] == pytest.approx(4 * 3 * flops / 0.5 / 2)
    assert rates["utilisation"] == pytest.approx(rates["flops_per_second"] / 1e6)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v4 lite", None),
        ("cpu", None),
    ],
)
def test_peaks_are_found_by_the_names_of_jax(kind, peak):
    assert known_peak(kind) == peak
