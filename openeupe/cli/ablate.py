"""The command ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openeupe.cli.app import (
    AllowCode,
    AsJson,
    Device,
    Overrides,
    app,
    console,
    error_progress,
    packaged,
    print_json,
    progress,
)
from openeupe.errors import InputError
from openeupe.limits import WORKERS


@app.command()
def ablate(
    study: Annotated[
        str,
        typer.Argument(
            help="A study file, or the name of a packaged one.", autocompletion=packaged("study")
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder.  [default: studies/NAME]")
    ] = None,
    data: Annotated[
        Path,
        typer.Option("--data", help="Folder that the recipes' and the suite's paths start from."),
    ] = Path(),
    jobs: Annotated[
        int, typer.Option(min=1, max=WORKERS, help="Stages and evaluations at a time.")
    ] = 1,
    device: Device = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Only rebuild tables from existing results.")
    ] = True,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Run a study: recipes x seeds, trained, evaluated and compared; repeat to resume.

    Stages that several recipes share are trained once. Writes results-NAME.json and
    tables-NAME.md.

    Example: `openeupe ablate stages --data photos --out studies/stages`
    """
    from rich.markdown import Markdown

    from openeupe.ablation.report import report, tables_file
    from openeupe.ablation.running import Place, check, run_study, warm_up
    from openeupe.ablation.study import load_study
    from openeupe.ablation.study_results import StudyResults
    from openeupe.distributed import named_device

    loaded = load_study(study, overrides, allow_code=allow_code)
    named_device(device)  # refused now rather than in each process
    place = Place(out or Path("studies") / loaded.study.name, data, device)
    log = error_progress if as_json else progress
    if len(loaded.study.seeds) == 1 and loaded.study.tables:
        log.message(
            "seeds: with one seed the noise of training is unknown, and no table gives a verdict; "
            "seeds=[0,1,2] gives one"
        )
    failed: list[str] = []
    if run:
        if jobs > 1:
            warm_up()
        check(loaded, place)
        failed = run_study(loaded, place, jobs, log)
    content = report(StudyResults(loaded, place))
    if as_json:
        print_json(content)
    else:
        tables = tables_file(place.out, loaded.study.name)
        console.print(Markdown(tables.read_text(encoding="utf-8")))
        console.print(f"Saved in {place.out}", soft_wrap=True, highlight=False)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}; the same command goes on with the rest")
