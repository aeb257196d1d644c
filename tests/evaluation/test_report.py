"""Reports as files: what was written is read, and nothing else is taken for one."""

import math

import pytest

from titans_eqx.errors import UserError
from titans_eqx.evaluation.report import read_table, write_json


def test_a_report_is_read_as_it_was_written(tmp_path):
    path, table = (
        tmp_path / "report.json",
        [{"length": 8, "accuracy": 0.5, "low": None}],
    )
    write_json({"task": "recall", "table": table}, path)
    assert read_table(path) == table


def test_what_is_not_finite_is_null(tmp_path):
    write_json({"table": [{"low": -math.inf, "of": [math.nan, 1.0]}]}, tmp_path / "a")
    assert read_table(tmp_path / "a") == [{"low": None, "of": [None, 1.0]}]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"table": []}', '{"table": 3}', '{"table": ["a"]}', "\0"],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is not the result of an evaluation"):
        read_table(path)
