"""`rlhf clean`: a data set mended in named steps, each change of which is logged."""

from rlhf.data.cleaning.cleaner import Cleaned, CleaningSteps, clean_rows
from rlhf.data.cleaning.files import clean_to_file

__all__ = ["Cleaned", "CleaningSteps", "clean_rows", "clean_to_file"]
