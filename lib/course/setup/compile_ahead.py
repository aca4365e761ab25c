"""Compile what lessons import, once, at set-up: `python -m lib.course.setup.compile_ahead`, which make calls.

pip would compile every module of every package. That is a fifth of a learner's environment, of which lessons read a
third. An import compiles what it reads; so this imports all of lib that is installed, and what lessons ask for later.
"""

import contextlib
import importlib
import io
import pkgutil
import sys
import warnings

import lib

LATER = """
IPython ipykernel.kernelapp ipywidgets jupyterlab.labapp matplotlib.pyplot matplotlib_inline.backend_inline nbconvert
papermill nbval.plugin openai peft rouge_score.rouge_scorer torch._dynamo torch.distributed.run
transformers.models.gpt2.modeling_gpt2 transformers.models.llama.modeling_llama
nbgrader.api sphinx.application myst_nb hypothesis xdist.plugin
""".split()


def main() -> None:
    """Import it all; what is not installed here, such as another role's, is left out."""
    sys.dont_write_bytecode = False  # where the environment forbids it, every kernel would compile PyTorch anew
    warnings.simplefilter("ignore")
    ours = [module.name for module in pkgutil.walk_packages(lib.__path__, "lib.") if not module.name.endswith("__")]
    for name in (*ours, *LATER):
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(name)


if __name__ == "__main__":
    main()
