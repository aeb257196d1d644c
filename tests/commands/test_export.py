from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.commands.export import main
from titans_eqx.commands.generate import main as generate


def test_an_exported_model_writes_what_the_run_writes(run_folder, tmp_path):
    out = tmp_path / "new" / "folder"
    result = CliRunner().invoke(main, ["--run", str(run_folder), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"step 40 of {run_folder} exported to {out}" in result.output
    written = [
        CliRunner().invoke(generate, ["--run", str(folder), "--prompt", "line"])
        for folder in (run_folder, out)
    ]
    assert written[0].exit_code == 0
    assert len(written[0].stdout) > 100
    assert written[1].stdout == written[0].stdout
    assert_refused(main, "--run", out, "--out", run_folder, message="is not empty")


def test_a_folder_without_a_model_is_refused(tmp_path):
    arguments = ["--run", tmp_path, "--out", tmp_path / "out"]
    message = "it has no checkpoints, and no model.safetensors either"
    assert_refused(main, *arguments, message=message)
