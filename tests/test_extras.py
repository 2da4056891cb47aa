from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from openeupe.cli.mistakes import as_mistake
from openeupe.extras import EXTRAS, missing_extra

ROOT = Path(__file__).parent.parent


def test_every_extra_is_one_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
    assert set(project["optional-dependencies"]) - set(EXTRAS.values()) == {"docs", "test"}


def test_a_function_whose_library_is_missing_names_the_extra() -> None:
    """As after a plain `pip install .`, which brings none of them."""
    program = (
        "import sys; from openeupe.extras import EXTRAS\n"
        "sys.modules.update(dict.fromkeys(EXTRAS))\n"  # None: cannot be imported
        "import openeupe\n"
        "try: openeupe.curate\n"
        "except openeupe.InputError as error: print(error)\n"
        "from openeupe.cli import main\n"
        "sys.argv = ['openeupe', 'curate', 'photos', '--out', 'it.parquet']; main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    line = "this needs the extra package pyarrow: pip install 'openeupe[curate]'"
    assert ran.stdout.splitlines() == [line]
    assert ran.stderr.splitlines() == [f"error: {line}"]
    assert ran.returncode == 2


def test_other_missing_modules_are_bugs() -> None:
    error = ModuleNotFoundError("No module named 'torch_scatter'", name="torch_scatter")
    assert missing_extra(error) is None
    assert as_mistake(error) is None
    known = as_mistake(ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet"))
    assert "openeupe[curate]" in str(known)
