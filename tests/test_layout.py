import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "titans_eqx"
# Each part may import from those before it and from itself.
PARTS = [
    "errors",
    "storage",
    "axes",
    "config",
    "nn",
    "memory",
    "attention",
    "models",
    "generation",
    "data",
    "training",
    "evaluation",
    "benchmark",
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
SOURCES = [*MODULES, *sorted((ROOT / "scripts").rglob("*.py"))]


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
