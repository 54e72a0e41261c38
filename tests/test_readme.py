import importlib.util
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert (scope["certificate"].bound >= scope["result"].few_shot_error([1, 5, 10, 50]).mean).all()
    assert (tmp_path / "digits.json").is_file()
    assert (tmp_path / "report" / "index.html").is_file()


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?://)([^)#]+)", TEXT)
    assert "CITATION.cff" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_name_existing_programs_and_configs():
    commands = re.findall(r"(?<![\w/.-])dnc ([a-z]+) +--", TEXT)
    configs = re.findall(r"--config=(\S+)", TEXT)
    paths = [f"dnc/commands/{command}.py" for command in commands] + configs
    assert {"train", "embed", "analyze"} <= set(commands)
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    modules = re.findall(r"python -m ((?:dnc|experiments)[\w.]*)", TEXT)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
