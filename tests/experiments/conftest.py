"""Fixtures of other rooms: a study of tiny networks, and real photos."""

from ..ablate.conftest import colors as colors
from ..ablate.conftest import raw_study as raw_study
from ..ablate.conftest import study_file as study_file
from ..encoders.conftest import photo as photo
