"""Where modules and names were before version 0.2: an old import leads to the new place, and a line says which that is.

Python asks here last, for a module of `lib` that is nowhere else, and first, for those that have lost a name.
"""

import importlib
import importlib.abc
import importlib.machinery
import re
import sys

MOVED = dict(line.split() for line in """
lib.catalogue               lib.sources.catalogue
lib.convert                 lib.weights.convert
lib.counting                lib.decide.counting
lib.course.data_command     lib.course.commands.data
lib.course.doctor           lib.course.setup.machine
lib.course.doctor_command   lib.course.commands.doctor
lib.course.execute          lib.course.headless.execute
lib.course.expectations     lib.lesson.expectations
lib.course.files            lib.lesson.files
lib.course.generate_command lib.course.commands.generate
lib.course.grade_command    lib.course.commands.grade
lib.course.ledger           lib.lesson.ledger
lib.course.lessons          lib.lesson.series
lib.course.measure          lib.course.authoring.bands
lib.course.own              lib.lesson.own
lib.course.preflight        lib.course.setup.preflight
lib.course.predictions      lib.lesson.predictions
lib.course.progress         lib.lesson.journal
lib.course.progress_command lib.course.commands.progress
lib.course.reading          lib.course.website.reading_time
lib.course.refresh          lib.course.authoring.renewal
lib.course.release_command  lib.course.commands.release
lib.course.report           lib.course.headless.display
lib.course.runner           lib.course.headless.runner
lib.course.serve_app        lib.inference.server
lib.course.serve_command    lib.course.commands.serve
lib.course.session          lib.lesson.session
lib.course.site_command     lib.course.commands.site
lib.course.site_pages       lib.course.website.pages
lib.course.site_reference   lib.course.website.reference
lib.course.site_sphinx      lib.course.website.sphinx_extension
lib.course.size_command     lib.course.commands.size
lib.course.train_command    lib.course.commands.train
lib.course.use_command      lib.course.commands.use
lib.customers               lib.shop.customers
lib.decoding                lib.inference.decoding
lib.desk                    lib.shop.desk
lib.dialogues               lib.shop.dialogues
lib.evaluation              lib.decide.evaluation
lib.families                lib.decide.families
lib.finetuning              lib.adapt.finetuning
lib.grading.card            lib.lesson.card
lib.grading.check           lib.lesson.checks
lib.grading.closure         lib.exercises.closure
lib.grading.exercise        lib.exercises.exercise
lib.grading.notebook        lib.lesson.cells
lib.grading.properties      lib.exercises.properties
lib.grading.release         lib.course.authoring.learners_copy
lib.grading.report          lib.grading.grades
lib.grading.runner          lib.grading.warm
lib.images                  lib.sources.images
lib.intents                 lib.shop.intents
lib.metamodel               lib.decide.metamodel
lib.parallel                lib.trainer.parallel
lib.plotting                lib.lesson.plotting
lib.pretrained              lib.weights.pretrained
lib.replay                  lib.inference.replay
lib.retail                  lib.shop.retail
lib.scaling                 lib.decide.scaling
lib.scenarios               lib.decide.scenarios
lib.serving                 lib.inference.engine
lib.sizing                  lib.decide.sizing
lib.specialist              lib.adapt.specialist
lib.grading.exercises       lib.exercises
lib.grading                 lib.lesson
""".split("\n") if line)  # the last: only in a learners' copy, which has no lib.grading
# Names that moved out of a module that still stands: the module, where they are now, the names (old=new if another).
NAMES = {f"{old}.{name.split('=')[0]}": f"{new}.{name.split('=')[-1]}" for old, new, *names in map(str.split, """
lib.adapt.finetuning       lib.adapt.adapters                 load_adapter save_adapter
lib.adapt.finetuning       lib.adapt.lora                     LoRALinear MATRICES TARGETS
lib.adapt.finetuning       lib.adapt.lora                     lora_off merge remove_lora unmerge
lib.adapt.finetuning       lib.adapt.replies                  reply request_flops
lib.adapt.finetuning       lib.adapt.summaries                ADAPTER EXAMPLES row rows studies summarise training_set
lib.adapt.finetuning       lib.adapt.workers                  side_by_side
lib.course                 lib.lesson                         start use use_lib
lib.course.commands.train  lib.course.training_run.live       Run sample
lib.course.commands.train  lib.course.training_run.recipe     PRESETS model_config train_config
lib.course.commands.train  lib.course.training_run.run_folder load plot save
lib.embedding              torch.nn                           TokenEmbedding=Embedding
lib.generation             lib.inference.text                 Text stream_text
lib.grading                lib.lesson                         check hint
lib.training               lib.trainer.checkpoint             load_checkpoint save_checkpoint
lib.training               lib.trainer.memory                 check_memory free_memory memory out_of_memory
lib.transformer            torch.nn                           LayerNorm
""".strip().split("\n")) for name in names}
LOST = {old.rpartition(".")[0] for old in NAMES}
# Options and methods that are gone: what to write instead.
WAYS = {
    "return_attention": "from lib.attention import recorded, then: with recorded(model) as maps: model(…)",
    "return_weights": "from lib.attention import recorded, then: with recorded(layer) as maps: layer(…); without a "
                      "layer, attention_weights(q, k, mask) gives them",
    "hidden": "model.last_hidden_state(tokens), which gives one tensor",
}  # fmt: skip
_told: set[str] = set()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old name: the very module, under both names."""

    def find_spec(self, name, path=None, target=None):
        new = MOVED.get(name)
        if new is None:
            return None
        tell(name, new)
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])

    def get_code(self, name):
        """`python -m lib.course.train_command`, the one module that was a program for users."""
        raise ImportError(f"{name} is a command now: python -m lib.course {MOVED[name].rpartition('.')[2]}")


class Former(importlib.abc.MetaPathFinder):
    """Finds the modules that have lost a name, and has them answer for it. They themselves know nothing of this."""

    def find_spec(self, name, path=None, target=None):
        if name not in LOST:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = Answering(spec.name, spec.origin)
        return spec


class Answering(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        module.__getattr__ = forward(module.__name__)
        super().exec_module(module)


def forward(module: str):
    """A module's `__getattr__` for names that are elsewhere now."""

    def find(name: str):
        new = NAMES.get(f"{module}.{name}")
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        tell(f"{module}.{name}", new)
        place, _, name = new.rpartition(".")
        return getattr(importlib.import_module(place), name)

    return find


def tell(old: str, new: str) -> None:
    """Say once where something is now."""
    if old not in _told:
        _told.add(old)
        place, _, name = new.rpartition(".")
        print(f"{old} has moved; write: from {place} import {name}", file=sys.stderr)


def way(error: BaseException | str) -> str:
    """The line that names today's way to what an old notebook asked for; "" for any other error."""
    found = re.search(r"unexpected keyword argument '(\w+)'|object has no attribute '(\w+)'", str(error))
    name = found and (found[1] or found[2])
    return f"{name} is gone; write: {WAYS[name]}" if name in WAYS else ""


def install() -> None:
    """Let Python ask here."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
        sys.meta_path.insert(0, Former())
