"""Which tests one of several processes carries out together, and which begin first.

Every file is a group. Files that share what is long to make are one group, and the groups that
take longest begin first, so that no process is left with one of them at the end. The marker
`xdist_group` would do it, but xdist 3.8 writes it into a name that pytest 9.2 no longer reads.
"""

from __future__ import annotations

from typing import Any

# fixture that is made once a process -> the files that use it (or all of a folder)
SHARED = {
    "quickstart": (
        "tests/docs/test_evaluating.py",
        "tests/docs/test_looking.py",
        "tests/docs/test_sharing.py",
        "tests/docs/test_shipping.py",
        "tests/encoders/test_resolver.py",
        "tests/evaluation/test_mini.py",
        "tests/share/test_saving.py",
        "tests/test_quickstart.py",
        "tests/visualization/test_pictures.py",
    ),
    "exported": ("tests/deployment/",),
    "reported": ("tests/report/",),
}
# The costs of large networks are remembered by a process, too.
TOGETHER = SHARED | {
    "plans": (
        "tests/docs/test_pages.py",
        "tests/distillation/test_plan.py",
        "tests/api/test_examples.py",
    )
}
LONGEST = [
    "quickstart",
    "exported",
    "plans",
    "tests/distillation/test_resume.py",
    "tests/distillation/test_distributed.py",
    "tests/test_stopping.py",
    "tests/docs/test_quickstarts.py",
    "tests/distillation/test_teacher_cache.py",
    "tests/distillation/test_run.py",
]


def group_of(nodeid: str) -> str:
    """The group of a test."""
    file = nodeid.split("::")[0]
    return next((name for name, files in TOGETHER.items() if file.startswith(files)), file)


def place_of(nodeid: str) -> int:
    """Where the group of a test stands: the smallest place begins first."""
    group = group_of(nodeid)
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


def scheduler(config: Any, log: Any) -> Any:
    """What deals out tests by group; of xdist, which need not be installed."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # by place, not by the number of tests
    return ByGroup(config, log)
