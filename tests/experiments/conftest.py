"""Fixtures of other rooms: a study of tiny networks, and real photos."""

from ..ablation.conftest import colors as colors
from ..ablation.conftest import raw_study as raw_study
from ..ablation.conftest import study_file as study_file
from ..encoders.conftest import photo as photo
