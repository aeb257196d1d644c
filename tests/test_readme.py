import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = {
    page: page.read_text(encoding="utf-8")
    for page in (
        README,
        ROOT / "configs" / "README.md",
        ROOT / "scripts" / "benchmark" / "README.md",
    )
}
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGES[README], flags=re.DOTALL)
PATHS = sorted(set(re.findall(r"`((?!runs)\w+/[\w./]*)`", "".join(PAGES.values()))))
LINKS = sorted(
    (page.parent / link).relative_to(ROOT).as_posix()
    for page, text in PAGES.items()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text)
)


def test_examples_of_the_readme_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        with jax.numpy_dtype_promotion("standard"):  # optax and a user's code want it
            exec(example, names)  # the later examples go on from the earlier ones
    assert names["y"].shape == (8, 100, 64)  # pyright: ignore
    assert names["y_one"].shape == (8, 64)  # pyright: ignore
    assert names["more"].shape == (20,)  # pyright: ignore


@pytest.mark.parametrize("path", [*PATHS, *LINKS])
def test_files_that_the_readme_names_exist(path: str):
    assert any((folder / path).exists() for folder in (ROOT, ROOT / "titans_eqx"))
