"""Broken and odd files, odd folders, odd names. What can be read is graded; the rest is told why it is not."""

import json
import os

from hostile.entry import Entry, answer_cell, code, file_name, insert, notebook
from lib.exercises.exercise import exercise

NAME = file_name("02")


def raw(name, change, problem="", **more):
    return Entry(name, raw=change, problem=problem, **more)


def only(data):
    """A file with these bytes and nothing else."""
    return lambda _: data


def built(name, build, problem="", **more):
    return Entry(name, build=build, problem=problem, **more)


def named(name, path):
    return Entry(name, path=path)


def format_3(nb):
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell["input"] = cell.pop("source")
            cell["language"] = "python"
    nb["worksheets"] = [{"cells": nb.pop("cells"), "metadata": {}}]
    nb["nbformat"], nb["nbformat_minor"] = 3, 0


def format_5(nb):
    nb["nbformat"], nb["nbformat_minor"] = 5, 7
    nb["new_of_the_future"] = {"a": [1, 2]}
    for cell in nb["cells"]:
        cell["future"] = None


def conflict(data):
    text = json.dumps(json.loads(data), indent=1)
    at = text.index("\n", 200)
    return f"{text[:at]}\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> theirs\n{text[at:]}".encode()


def heavy(nb):
    """Fifty megabytes of pictures, and right answers."""
    picture = "QUJD" * (2**20 * 10 // 4)
    for _ in range(5):
        cell = code("plt.show()")
        cell["outputs"] = [{"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}}]
        insert(nb, cell)


def duplicate_cell_ids(nb):
    nb["nbformat"], nb["nbformat_minor"] = 4, 5
    for cell in nb["cells"]:
        cell["id"] = "same"


def nul_bytes(nb):
    answer_cell(nb, "02.attention")["source"] += "\n# \0\0\n"


def surrogates(nb):
    answer_cell(nb, "02.attention")["source"] += "\n# \ud800 \udfff\nnote = '\ud83d'\n"
    insert(nb, code("x = '\udcff'"), before="02.attention")


def deep_code(nb):
    """Parse bombs in cells of their own; the last is left unsolved, in a place where the grader looks closely."""
    for source in ("x = " + "-" * 50_000 + "1", "x = " + "+".join(["1"] * 20_000), "x = " + "(" * 150 + ")" * 150,
                   "x = " + "[" * 5_000 + "]" * 5_000, "x" + ".a" * 30_000, "x = 0x" + "F" * 150_000,
                   "lambda: " * 5_000 + "1", "x = " + "9" * 100_000, "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 99)),
                   "f'" + "{" * 500 + "'", "@" * 1_000 + "x", "not " * 50_000 + "x", "x = b'" + "\\x" * 9 + "'"):  # fmt: skip
        insert(nb, code(source), before="02.attention")
    for id, source in (("02.attention", "x = " + "+".join(["1"] * 1_500)), ("02.effective_tokens", "x = 0x" + "F" * 150_000)):
        answer_cell(nb, id)["source"] = exercise(id).stub + "\n" + source


def many_cells(nb):
    for i in range(10_000):
        nb["cells"].append(code(f"x{i} = {i}"))


def much_code(nb):
    for i in range(500):
        nb["cells"].append(code(f"x{i} = [" + "1, " * 40_000 + "]"))


def symlink(folder, place):
    folder.mkdir()
    (folder / NAME).symlink_to(os.path.join(place.CLASS, "good_plain", NAME))


def folder_symlink(folder, place):
    folder.symlink_to(os.path.join(place.CLASS, "good_plain"))


def inner_symlink(folder, place):
    folder.mkdir()
    (folder / "work").symlink_to(os.path.join(place.CLASS, "good_plain"))


def looping_symlink(folder, place):
    folder.mkdir()
    (folder / "again").symlink_to("..")
    (folder / NAME).symlink_to(NAME)


def fifo(folder, place):
    folder.mkdir()
    os.mkfifo(folder / NAME)


def socket_file(folder, place):
    import socket

    folder.mkdir()
    here = os.getcwd()
    os.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(NAME)
    os.chdir(here)


def folder_named_like_a_notebook(folder, place):
    (folder / NAME).mkdir(parents=True)


def nothing(folder, place):
    folder.mkdir()


def no_notebook(folder, place):
    folder.mkdir()
    (folder / "answers.py").write_text("print(8)")


def sparse(folder, place):
    folder.mkdir()
    with open(folder / NAME, "wb") as file:
        file.truncate(10**9)


def deep_folders(folder, place):
    deep = folder / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / NAME).write_text(json.dumps(notebook("02")))
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "02_attention-checkpoint.ipynb").write_text(json.dumps(notebook("02")))


def another_course(folder, place):
    folder.mkdir()
    cells = [code("print('hello')"), code("def f(x):\n    return x", "week3-problem1")]
    (folder / "homework.ipynb").write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


ENTRIES = [
    raw("not_json", only(b"print('this is a script')\n"), "not JSON"),
    raw("half_a_file", lambda data: data[: len(data) // 2], "not JSON"),
    raw("empty_file", only(b""), "empty"),
    raw("zeros", only(bytes(1000)), "not JSON"),
    raw("a_list", only(b"[1, 2, 3]"), "no notebook"),
    raw("cells_of_no_kind", only(b'{"cells": {"a": 1}, "nbformat": 4}'), "no notebook"),
    raw("no_cells", only(b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'), "no cells"),
    raw("a_zip_file", only(b"PK\x03\x04" + bytes(range(256)) * 100), "not JSON"),
    raw("merge_conflict", conflict, "merge conflict"),
    Entry("format_3", edit=format_3),
    Entry("format_5", edit=format_5),
    raw("byte_order_mark", lambda data: b"\xef\xbb\xbf" + data),
    raw("utf_16", lambda data: data.decode().encode("utf-16")),
    raw("latin_1", lambda data: json.dumps(json.loads(data) | {"author": "Ren\xe9"}, ensure_ascii=False).encode("latin-1", "replace")),
    raw("mac_line_ends", lambda data: json.dumps(json.loads(data), indent=1).replace("\n", "\r").encode()),
    raw("keys_told_twice", lambda data: b'{"cells": [], ' + data[1:]),
    raw("infinities", lambda data: b'{"x": [NaN, -Infinity, 1e999], ' + data[1:]),
    raw("number_of_many_digits_in_json", lambda data: b'{"x": ' + b"9" * 10**5 + b", " + data[1:], "not JSON"),
    raw("nested_a_hundred_thousand_deep", only(b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
    raw("wide_json", only(b"[" + b"{}," * 12_000_000 + b"{}]"), "no notebook"),
    Entry("fifty_megabytes_of_outputs", edit=heavy),
    Entry("duplicate_cell_ids", edit=duplicate_cell_ids),
    Entry("nul_bytes", edit=nul_bytes, deserves={"02.attention": 0}),  # no Python will run such a cell
    Entry("lone_surrogates", edit=surrogates),
    Entry("code_that_breaks_parsers", edit=deep_code, deserves={"02.attention": 0, "02.effective_tokens": 0}),
    Entry("ten_thousand_cells", edit=many_cells, problem="cells"),
    Entry("sixty_megabytes_of_code", edit=much_code, problem="code"),
    built("link_to_another_notebook", symlink, "link to another file"),
    built("link_to_another_learner", folder_symlink, "link to another folder"),
    built("link_to_another_folder_inside", inner_symlink, "no notebook"),
    built("links_in_a_circle", looping_symlink, "link to another file"),
    built("pipe", fifo, "no ordinary file"),
    built("socket", socket_file, "cannot be opened"),
    built("folder_named_like_a_notebook", folder_named_like_a_notebook, "no notebook"),
    built("empty_folder", nothing, "no notebook"),
    built("no_notebook_in_it", no_notebook, "no notebook"),
    built("sparse_gigabyte", sparse, "MB"),
    built("deep_in_folders", deep_folders),
    built("another_course", another_course, "no exercise of this course"),
    named("name_with_newline", "new\nline\r\x1b[31mred"),
    named("name_of_bytes", b"caf\xe9-\xff\xfe"),
    named("name_of_markup", "<img src=x onerror=alert(1)>&amp;\"'"),
    named("name_of_formula", "=HYPERLINK(1+1)"),
    named("name_like_an_option", "--db"),
    named("name_that_climbs", "..%2f..%2fetc"),
    named("name_of_dots", "..."),
    named("name_turned_round", "\u202eevil\u2066\u200b"),
    named("name_in_two_forms_1", "e\u0301ve"),
    named("name_in_two_forms_2", "\xe9ve"),
    named("name_very_long", "long" * 60),
    named("name_of_spaces", " "),
    named("name_in_brackets", "[bold red]{0}%s$HOME`id`;"),
]
