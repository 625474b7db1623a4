import subprocess
from pathlib import Path

import pytest

from ssdd_lightning.cli.main import FILE_COMMANDS, STAGE_COMMANDS, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_command_is_completed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in (*FILE_COMMANDS, *STAGE_COMMANDS))
    assert "voc2012/dynamic" in script


def test_bash_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = tmp_path / "ssdd.sh"
    script.write_text(capsys.readouterr().out)
    ask = 'source "$1"; COMP_WORDS=(ssdd eval); COMP_CWORD=1; _shtab_ssdd ssdd eval ssdd; echo "${COMPREPLY[@]}"'
    found = subprocess.run(["bash", "-c", ask, "bash", str(script)], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["evaluate"], found.stderr
