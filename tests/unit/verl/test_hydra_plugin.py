"""The Hydra plugin keeps out of programs that are not verl's."""

import subprocess
import sys
from pathlib import Path

OTHER_PROGRAM = """
import hydra, sys
@hydra.main(config_path="conf", config_name="ppo_trainer", version_base=None)
def main(config):
    print(dict(config.reward_model))
    print(sorted(m for m in ("verl", "kubernetes", "aiohttp", "pydantic", "torch") if m in sys.modules))
main()
"""


def test_another_programs_files_of_the_same_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "ppo_trainer.yaml").write_text("defaults: [legacy_reward_impl, _self_]\n")
    (tmp_path / "conf" / "legacy_reward_impl.yaml").write_text("reward_model: {mine: 1}\n")
    (tmp_path / "program.py").write_text(OTHER_PROGRAM)
    command = [sys.executable, "program.py", "hydra.run.dir=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["{'mine': 1}", "[]"], done.stderr
