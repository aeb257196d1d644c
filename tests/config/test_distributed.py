import pytest

from tests.refusal import assert_refused
from titans_eqx.config import load_config

WRONG = {
    "nobody to ask": (
        "num_processes = 2",
        'distributed.num_processes = 2 needs distributed.coordinator = "host:port"',
    ),
    "no port": ('coordinator = "a"', 'distributed.coordinator must be "host:port"'),
    "odd port": ('coordinator = "a:99999"', 'must be "host:port", got "a:99999"'),
    "id too large": (
        'coordinator = "a:1"\nnum_processes = 2\nprocess_id = 2',
        "distributed.process_id must be below distributed.num_processes, got 2 and 2",
    ),
    "two ways": (
        'coordinator = "a:1"\nauto = true',
        "distributed.auto finds the coordinator itself",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_processes_that_cannot_find_each_other_are_refused(tmp_path, name):
    text, message = WRONG[name]
    path = tmp_path / "wrong.toml"
    path.write_text(f"[distributed]\n{text}\n")
    assert_refused(load_config, path, message=message)


def test_one_config_serves_all_processes_and_a_single_one(tmp_path):
    path = tmp_path / "one.toml"
    path.write_text('[distributed]\ncoordinator = "[::1]:1"\nnum_processes = 2\n')
    ids = [
        load_config(path, [f"distributed.process_id={n}"]).distributed.process_id
        for n in range(2)
    ]
    assert ids == [0, 1]
    assert not load_config(path, ["distributed.num_processes=1"]).distributed.is_joint
