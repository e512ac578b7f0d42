"""What is written twice, for pip, conda and citation, says the same."""

import re
import tomllib
from pathlib import Path

import multipert as mp

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, BUILD = PYPROJECT["project"], PYPROJECT["build-system"]
CONDA_CALLS = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


def bounds(requirements: list[str]) -> set[tuple[str, str]]:
    """Names, lower case, and the versions asked for."""
    found = (re.fullmatch(r"([\w-]+) *(.*)", one) for one in requirements)
    return {(one[1].lower(), one[2]) for one in found if one}


def test_the_conda_recipe_asks_for_what_pip_does() -> None:
    run = (ROOT / "conda" / "meta.yaml").read_text("utf-8").partition("  run:\n")[2].partition("\n\n")[0]
    asked = bounds([line.removeprefix("    - ") for line in run.splitlines()])
    wanted = bounds([*PROJECT["dependencies"], f"python{PROJECT['requires-python']}"])
    assert asked == {(CONDA_CALLS.get(name, name), bound) for name, bound in wanted}


def test_the_conda_recipe_builds_the_same_program() -> None:
    recipe = (ROOT / "conda" / "meta.yaml").read_text("utf-8")
    assert f"  name: {PROJECT['name']}\n" in recipe
    for program, function in PROJECT["scripts"].items():
        assert f"    - {program} = {function}\n" in recipe
    for name, bound in bounds([*BUILD["requires"], f"python{PROJECT['requires-python']}"]):
        assert f"    - {name} {bound}\n" in recipe
    assert f"  license: {PROJECT['license']}\n" in recipe
    assert f"  summary: {PROJECT['description']}\n" in recipe


def test_the_oldest_releases_are_those_that_pip_allows() -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = [line.lower().removesuffix(".*").split("==") for line in lines if "==" in line]
    allowed = {(name, bound.removeprefix(">=")) for name, bound in bounds(PROJECT["dependencies"])}
    assert {(name, version) for name, version in pins} == {one for one in allowed if one[0] != "torch"}


def test_versions_agree() -> None:
    for file, pattern in (
        ("CITATION.cff", r"^version: (.+)$"),
        ("conda/meta.yaml", r'set version = "(.+?)"'),
        ("CHANGELOG.md", r"^## \[(\d.*?)\]"),
    ):
        found = re.search(pattern, (ROOT / file).read_text("utf-8"), re.MULTILINE)
        assert found is not None
        assert found[1] == mp.__version__, file


def test_what_a_user_installs_holds_no_tools_of_ours() -> None:
    ours = {"pytest", "hypothesis", "pertpy", "cell-eval", "cell-eval2", "scperteval", "mypy", "ruff", "sphinx"}
    assert not ours & {name for name, _ in bounds(PROJECT["dependencies"])}
