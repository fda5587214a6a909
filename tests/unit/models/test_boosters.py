import subprocess
import sys


def test_scoring_does_not_import_scikit_learn_which_can_still_be_imported() -> None:
    program = (
        "import sys, models.tree\n"
        "assert 'sklearn' not in sys.modules\n"
        "import sklearn\n"
        "assert sklearn.__version__\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
