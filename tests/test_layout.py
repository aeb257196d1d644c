import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "titans_eqx"
# Each part may import from those before it and from itself.
PARTS = [
    "errors",
    "terminal",
    "files",
    "axes",
    "nn",
    "sharding",
    "config",
    "memory",
    "attention",
    "models",
    "data",
    "checkpoint",
    "generation",
    "training",
    "evaluation",
    "commands",
]
TOP_LEVEL = {
    "titans_eqx",
    "scripts",
    "configs",
    "tests",
    "pyproject.toml",
    "README.md",
    "LICENSE",
}
CODE_LOADERS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}

MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
SOURCES = [*MODULES, *SCRIPTS, *sorted((ROOT / "scripts").glob("*/**/*.py"))]
MAX_LINES = 300
MAX_STATEMENTS = 3  # of a launcher, its docstring not counted


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: write imports in full"
            # `from titans_eqx import nn` names a module only together with `nn`.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_parts_import_only_from_parts_before_them(path: Path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in PARTS, f"{part} has no place in the order of imports"
    allowed = PARTS[: PARTS.index(part) + 1]
    for module in imported_modules(path):
        top, *below = module.split(".")
        if top == "titans_eqx":
            assert below[0] in allowed, f"{relative(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_read_from_a_file_is_run_as_code(path: Path):
    tops = {module.split(".")[0] for module in imported_modules(path)}
    assert not tops & CODE_LOADERS
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            assert node.id not in CODE_RUNNERS, f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle" or (
                isinstance(node.value, ast.Constant) and node.value.value is False
            ), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_are_short(path: Path):
    n_lines = path.read_bytes().count(b"\n")
    assert n_lines <= MAX_LINES


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_scripts_only_launch(path: Path):
    docstring, *statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert len(statements) <= MAX_STATEMENTS


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_scripts_hide_no_standard_module(path: Path):
    # The folder of a script is the first place where Python looks for a module.
    assert path.stem not in sys.stdlib_module_names


def test_wheel_holds_the_package_alone():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert config["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["titans_eqx"]
    }


def test_hooks_run_what_ci_runs():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # A command may be followed by the script's arguments, where its output goes, or
    # what is done if it fails.
    tools = r"^\(?run ((?:ruff|pyright|pytest)[\w .-]*?)(?:\) >.*| \"\$@\" \|\|.*)?$"
    checks = re.findall(tools, ci, re.MULTILINE)
    assert re.findall(r"entry: (.+)", hooks) == checks


def test_annotations_are_checked_while_tests_run():
    from titans_eqx.config import to_toml

    with pytest.raises(TypeCheckError):
        to_toml("not a config")  # pyright: ignore[reportArgumentType]


def test_top_level_holds_only_what_it_should():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    if not names:
        pytest.skip("not a git checkout: no telling our files from the user's")
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_the_parts_of_the_library_need_no_import_of_their_own():
    import titans_eqx

    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for part in folders - {"commands", "terminal"}:
        assert titans_eqx.__getattr__(part).__name__ == f"titans_eqx.{part}"
