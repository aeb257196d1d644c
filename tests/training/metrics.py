"""The metrics of a run, as they stand in its folder."""

import json


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def numbers(folder):
    """What was measured at each step, without the clock's part in it."""
    return [
        {name: value for name, value in line.items() if "per_second" not in name}
        for line in records(folder)
    ]
