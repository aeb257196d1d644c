"""Reports as files: what was written is read, and nothing else is taken for one."""

import io
import math

import pytest
from rich.console import Console

from titans_eqx.errors import UserError
from titans_eqx.evaluation.report import read_report, show, write_json


def test_a_report_is_read_as_it_was_written(tmp_path):
    path, table = (
        tmp_path / "report.json",
        [{"length": 8, "accuracy": 0.5, "low": None}],
    )
    write_json({"task": "recall", "table": table}, path)
    assert read_report(path).table == table


def test_what_is_not_finite_is_null(tmp_path):
    write_json({"table": [{"low": -math.inf, "of": [math.nan, 1.0]}]}, tmp_path / "a")
    assert read_report(tmp_path / "a").table == [{"low": None, "of": [None, 1.0]}]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"table": []}', '{"table": 3}', '{"table": ["a"]}', "\0"],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is not the result of an evaluation"):
        read_report(path)


def test_names_of_folders_are_no_markup():
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    show([{"rule": "[bold]of a long name"}], "runs/[red]a[/b]", console)
    assert "runs/[red]a[/b]" in printed.getvalue()
    assert "[bold]of a long name" in printed.getvalue()
