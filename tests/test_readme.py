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
    modules = re.findall(r"python -m (dnc\.\w+)", TEXT)
    configs = re.findall(r"--config=(\S+)", TEXT)
    paths = [module.replace(".", "/") + ".py" for module in modules] + configs
    assert [path for path in paths if not (ROOT / path).is_file()] == []
