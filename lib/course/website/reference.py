"""The library's reference, made from its docstrings without importing it: the story in reading order, then rooms."""

import ast
import re
from collections.abc import Iterator

from lib.lesson.series import Lesson, source
from lib.sources.places import ROOT

LIB = ROOT / "lib"
IMPORT = re.compile(r"^\s*(?:from lib([.\w]*) import (.+)|import lib\.([.\w]+))", re.MULTILINE)
ROOMS = ("sources", "kernels", "trainer", "weights", "inference", "decide", "shop", "adapt", "lesson")
APART = ("__init__", "moved")  # no part of the story


def pages(lessons: list[Lesson]) -> dict[str, str]:
    """Markdown by page name: `index`, then a module each: `attention`, `inference.decoding`."""
    readers = _readers(lessons)
    package = ast.get_docstring(ast.parse((LIB / "__init__.py").read_text(encoding="utf-8"))) or ""
    stated = re.findall(r"\w+", package.partition("order of the lessons: ")[2].partition(".")[0])
    modules = _modules(stated)
    parts = [f"# The library\n\n{_prose(package)}", "## The story", _listed(modules, "")]
    parts += [f"## lib.{room}\n\n{_listed(modules, f'{room}.')}" for room in ROOMS]
    names = "\n".join(modules)
    found = {"index": "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"])}
    return found | {name: _page(name, module, readers.get(name, [])) for name, module in modules.items()}


def _modules(stated: list[str]) -> dict[str, ast.Module]:
    """Every module that has a page, parsed: the story's in the order stated, then each room's."""
    def order(path) -> tuple:
        return stated.index(path.stem) if path.stem in stated else len(stated), path.stem

    story = [path for path in sorted(LIB.glob("*.py"), key=order) if path.stem not in APART]
    rooms = [path for room in ROOMS for path in sorted((LIB / room).glob("*.py")) if path.stem != "__init__"]
    return {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in [*story, *rooms]}


def _name(path) -> str:
    return ".".join(path.relative_to(LIB).with_suffix("").parts)


def _listed(modules: dict[str, ast.Module], room: str) -> str:
    inside = [name for name in modules if name.startswith(room) and ("." in name) == bool(room)]
    return "\n".join(f"- [lib.{name}]({name}.md): {_first_line(modules[name])}" for name in inside)


def _readers(lessons: list[Lesson]) -> dict[str, list[Lesson]]:
    """The lessons that import each module."""
    found: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        code = "\n".join(source(cell) for cell in lesson.notebook["cells"] if cell.get("cell_type") == "code")
        for place, names, whole in IMPORT.findall(code):
            parts = [name.split(" as ")[0].strip() for name in names.split(",")]
            for name in (whole, place.lstrip("."), *(f"{place}.{part}".lstrip(".") for part in parts)):
                if (LIB / f"{name.replace('.', '/')}.py").is_file() and lesson not in found.get(name, []):
                    found.setdefault(name, []).append(lesson)
    return found


def _page(name: str, module: ast.Module, readers: list[Lesson]) -> str:
    where = ", ".join(f"[{lesson.number}](../notebooks/{lesson.path.name})" for lesson in readers)
    used = f"Used in lesson{'s' * (len(readers) > 1)} {where}. " if readers else ""
    file = f"lib/{name.replace('.', '/')}.py"
    parts = [f"# lib.{name}", f"```{{py:module}} lib.{name}\n```", f"*{used}The code is in `{file}`.*",
             _prose(ast.get_docstring(module) or "")]  # fmt: skip
    _Qualify(module).visit(module)
    for node in module.body:
        if _public(node):
            parts.append(_class(node) if isinstance(node, ast.ClassDef) else _function(node, "function"))
    return "\n\n".join(parts) + "\n"


class _Qualify(ast.NodeTransformer):
    """Annotations that name a class of another module say which: two modules may have one name for two."""

    def __init__(self, module: ast.Module):
        imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and node.module]
        self.full = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in imports for alias in node.names
        }  # fmt: skip

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = node.annotation and _Names(self.full).visit(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.visit(node.args)
        node.returns = node.returns and _Names(self.full).visit(node.returns)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = _Names(self.full).visit(node.annotation)
        return node


class _Names(ast.NodeTransformer):
    def __init__(self, full: dict[str, str]):
        self.full = full

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.full.get(node.id, node.id))


def _public(node: ast.AST) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, kind: str) -> str:
    decorators = {ast.unparse(decorator).split(".")[-1].split("(")[0] for decorator in node.decorator_list}
    arguments = node.args
    if kind == "method" and "staticmethod" not in decorators:
        arguments = _without_first(arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if decorators & {"property", "cached_property"}:
        options = f"\n:type: {ast.unparse(node.returns)}" if node.returns else ""
        return _directive(":::", "property", node.name, options, node)
    options = "".join(f"\n:{option}:" for option in ("classmethod", "staticmethod") if option in decorators)
    options += "\n:async:" * isinstance(node, ast.AsyncFunctionDef)
    return _directive(":::", kind, f"{node.name}({ast.unparse(arguments)}){returns}", options, node)


def _class(node: ast.ClassDef) -> str:
    members = [_function(part, "method") for part in node.body if _public(part) and ast.get_docstring(part)]
    inside = "\n\n".join([_prose(ast.get_docstring(node) or ""), *members])
    return _fenced("::::", "class", f"{node.name}({_made_with(node)})", "", inside)


def _made_with(node: ast.ClassDef) -> str:
    """What a class is called with: __init__'s arguments, or the fields of a data class or a named tuple."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return ast.unparse(_without_first(part.args))
    decorated = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    if not decorated and not any("NamedTuple" in ast.unparse(base) for base in node.bases):
        return ""
    return ", ".join(_fields(node))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not part.target.id.startswith("_"):
            value = "" if part.value is None else f" = {ast.unparse(part.value)}"
            if "field(" in value:
                value = " = …"
            yield f"{part.target.id}: {ast.unparse(part.annotation)}{value}"


def _without_first(arguments: ast.arguments) -> ast.arguments:
    kept = ast.arguments(**{name: getattr(arguments, name) for name in arguments._fields})
    kept.posonlyargs, kept.args = ([], arguments.args) if arguments.posonlyargs else ([], arguments.args[1:])
    return kept


def _directive(fence: str, kind: str, signature: str, options: str, node: ast.AST) -> str:
    return _fenced(fence, kind, signature, options, _prose(ast.get_docstring(node) or ""))


def _fenced(fence: str, kind: str, signature: str, options: str, inside: str) -> str:
    return f"{fence}{{py:{kind}}} {signature}{options}\n\n{inside}\n{fence}"


def _first_line(module: ast.Module) -> str:
    return _prose((ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " "))


def _prose(docstring: str) -> str:
    """A docstring as Markdown: indented blocks stay as they are drawn, and what is not code is escaped."""
    lines: list[str] = []
    for line in docstring.splitlines():
        if line.startswith("    "):
            if lines and lines[-1] and not lines[-1].startswith("    "):
                lines.append("")
            lines.append(line)
        else:
            pieces = re.split(r"(`[^`]+`)", line)
            lines.append("".join(p if p.startswith("`") else re.sub(r"([$*<\[\]])", r"\\\1", p) for p in pieces))
    return "\n".join(lines)
