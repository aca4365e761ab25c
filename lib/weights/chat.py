"""A model's own tokenizer, and the way it wants a conversation laid out, from its folder.

The folder's files decide: tokenizer.json cuts texts and says what is put around them, tokenizer_config.json names the
special tokens, chat_template.jinja lays out a conversation, generation_config.json or config.json ends a text. What a
folder does not declare is not guessed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path

from lib.errors import CourseError

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PRIVATE = range(0xE000, 0xF8FF)  # characters that mean nothing to anybody


class ChatTokenizer:
    """The tokenizer in a model's folder. ends: the ids that end a text; eos_id: the one that ends a turn, or None.

    Raises CourseError for a folder whose files cannot be read or contradict one another.
    """

    def __init__(self, folder: str | Path):
        from tokenizers import Tokenizer

        self.folder = Path(folder)
        try:
            self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        except Exception as problem:  # the tokenizers library raises bare Exceptions
            said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise CourseError(f"no usable tokenizer.json in {folder} ({said}); put the model's own there") from None
        # How long a text may be is for the model to say, and a single text needs no filling up.
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._last_twin = None, None
        self.settings = _read(self.folder / "tokenizer_config.json")
        self.tokenizer.encode_special_tokens = bool(self.settings.get("split_special_tokens"))
        self.named = {}  # bos_token, eos_token, … as texts
        for said in (_read(self.folder / "special_tokens_map.json"), self.settings):
            self.named |= {name: _content(said[name]) for name in NAMED if said.get(name) is not None}
        self._check_added()
        self.vocab_size = self.tokenizer.get_vocab_size()
        own = self.named.get("eos_token")
        own = None if own is None else self.tokenizer.token_to_id(own)
        declared = self._declared_ends()
        self.ends = frozenset(declared or ([] if own is None else [own]))
        self.eos_id = own if own is not None and (own in self.ends or not declared) else next(iter(declared), None)

    def _check_added(self) -> None:
        """Tokens that tokenizer_config.json adds should be tokenizer.json's: the model has a row for no others."""
        added = self.settings.get("added_tokens_decoder") or {}
        if not isinstance(added, Mapping):
            raise CourseError(f"added_tokens_decoder in {self.folder} is no table of tokens; put the model's own there")
        for id, token in added.items():
            if self.tokenizer.token_to_id(_content(token)) != (int(id) if str(id).isdigit() else None):
                raise CourseError(f"tokenizer_config.json in {self.folder} says that token {id} is "
                                  f"{_content(token)!r}, tokenizer.json does not; put two that belong together there")

    def _declared_ends(self) -> list[int]:
        """What generation_config.json says ends a text, else config.json: a number, or a list of them."""
        for file in ("generation_config.json", "config.json"):
            given = _read(self.folder / file).get("eos_token_id")
            if given is None:
                continue
            ids = given if isinstance(given, list) else [given]
            if not all(isinstance(id, int) and not isinstance(id, bool) and id >= 0 for id in ids):
                raise CourseError(f"eos_token_id in {self.folder / file} is {given!r}; it should be a token's number "
                                  f"or a list of them")  # fmt: skip
            return ids
        return []

    def encode(self, text: str) -> list[int]:
        """The text's own tokens, with nothing put around them."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, text: str) -> list[int]:
        """A text to go on from, with what this tokenizer puts around one, such as a token for the beginning."""
        return self.tokenizer.encode(text, add_special_tokens=True).ids

    def decode(self, ids) -> str:
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, id: int) -> str:
        """One token as text; a token that is only part of a character shows as �."""
        return self.tokenizer.decode([int(id)], skip_special_tokens=False)

    # Conversations

    @property
    def knows_chat(self) -> bool:
        """Whether the folder declares how a conversation is laid out, and an end. Raises CourseError as `template`."""
        return self._declared_template() is not None and self.template is not None and bool(self.ends)

    def _declared_template(self) -> str | None:
        file = self.folder / "chat_template.jinja"
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else self.settings.get("chat_template")
        except (OSError, UnicodeError) as problem:
            raise CourseError(f"{file} cannot be read ({_line(problem)}); put the model's own there") from None
        if isinstance(text, list):  # several, by their names
            text = {each.get("name"): each.get("template") for each in text if isinstance(each, Mapping)}
        return text.get("default") if isinstance(text, Mapping) else text

    @cached_property
    def template(self):
        """The model's chat template, compiled. Raises CourseError where there is none, or none that can be read."""
        import jinja2

        text = self._declared_template()
        if text is None:
            raise CourseError(f"the model in {self.folder} has no chat template; use one that was taught to converse")
        try:
            return _environment().from_string(str(text))
        except jinja2.TemplateError as problem:
            raise CourseError(
                f"the chat template in {self.folder} cannot be read ({_line(problem)}); put the model's own there"
            ) from None

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Messages [{"role": "user", "content": …}, …] as ids, ending where the assistant should speak.

        What a message says is text: a user who writes <|im_end|> does not end his turn by that. Raises CourseError
        where the template refuses the conversation.
        """
        import jinja2

        said = "".join(str(value) for message in messages for value in message.values())
        sly = self.marks.search(said) is not None
        private = [chr(c) for c in islice((c for c in PRIVATE if chr(c) not in said), 3)]
        if len(private) < 3:
            raise CourseError("these messages hold every private character there is; leave some out")
        hide, left, right = private
        if sly:  # a hidden character in the midst of each mark that a message holds
            messages = [{name: self.marks.sub(lambda m: m[0][:1] + hide + m[0][1:], str(value))
                         for name, value in message.items()} for message in messages]  # fmt: skip
        try:
            text = self.template.render(messages=[dict(message) for message in messages], tools=None, documents=None,
                                        add_generation_prompt=True, **self.named)  # fmt: skip
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as problem:
            raise CourseError(f"the model's chat template refuses this conversation ({_line(problem)}); change the "
                              f"messages") from None  # fmt: skip
        if not sly:
            return self.encode(text)
        # The template's marks get other names, known to a twin of the tokenizer that knows the old ones no longer.
        names = {token: f"{left}{i}{right}" for i, token in enumerate(self.special)}
        text = self.marks.sub(lambda m: names[m[0]], text).replace(hide, "")
        return self._twin(names).encode(text, add_special_tokens=False).ids

    @cached_property
    def special(self) -> list[str]:
        """The tokens that control, the longest first."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return sorted((token.content for token in added if token.special and token.content), key=len, reverse=True)

    @cached_property
    def marks(self) -> re.Pattern:
        """Any of them, in a text."""
        return re.compile("|".join(map(re.escape, self.special)) or r"(?!)")

    def _twin(self, names: dict[str, str]):
        """The same tokenizer, with other names for its special tokens."""
        from tokenizers import Tokenizer

        known, twin = self._last_twin  # one assignment below, for several threads may be here
        if known != names:
            same = json.loads(self.tokenizer.to_str())
            for token in same["added_tokens"]:
                token["content"] = names.get(token["content"], token["content"])
            model = same["model"]
            if isinstance(model["vocab"], dict):
                model["vocab"] = {names.get(token, token): id for token, id in model["vocab"].items()}
            else:
                model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
            if model.get("unk_token"):
                model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
            twin = Tokenizer.from_str(json.dumps(same, allow_nan=False))
            self._last_twin = names, twin
        return twin


def _environment():
    """Templates as transformers renders them, and no code that they bring along."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Scope
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} … {% endgeneration %} marks what an assistant said, and changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            line = next(parser.stream).lineno
            return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message):
        raise TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        options = dict(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return json.dumps(value, allow_nan=False, **options)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return made


def _read(path: Path) -> dict:
    """A JSON object, {} where there is no file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        raise CourseError(f"{path} is not readable JSON ({_line(problem)}); put the model's own there") from None
    if not isinstance(data, dict):
        raise CourseError(f"{path} does not hold a JSON object; put the model's own there")
    return data


def _content(token) -> str:
    """A token as text, from either way of writing it down."""
    return str(token.get("content")) if isinstance(token, Mapping) else str(token)


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:160] or type(problem).__name__
