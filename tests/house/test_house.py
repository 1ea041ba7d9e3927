#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, read from the sources.

A rule is a function from a tree to its violations.  Each has mutants: a small tree that keeps every
rule must be clean, and clean again but for the planted line's own rule, so no rule can go blind.
"""
import os
import re
import sys
import tempfile

FLOORS = {"base": 1, "tensor": 2, "index": 2, "vision": 3, "text": 3, "fusion": 4,
          "train": 5, "serve": 5, "cli": 6}
# Public headers that are not named after their floor.
HEADER_FLOORS = {"data": "train", "metrics": "train", "planning": "train"}
SOURCE = (".c", ".h", ".cpp", ".cu", ".def")
# A library's headers, by the pattern that finds them between the brackets.
LIBRARIES = {
    "dnnl": r"(oneapi/dnnl/)?dnnl[\w.]*", "jpeglib": r"(jpeglib|jerror|turbojpeg)\.h",
    "png": r"(libpng\d*/)?png\w*\.h", "webp": r"webp/.*", "utf8proc": r"utf8proc\.h",
    "sqlite3": r"sqlite3(ext)?\.h", "faiss": r"faiss/.*", "microhttpd": r"microhttpd\w*\.h",
    "jansson": r"jansson\w*\.h", "xxhash": r"xxh(ash|3)\.h", "mpi": r"mpi\.h",
    "pmix": r"pmix(_server)?\.h", "nccl": r"nccl\.h", "cudnn": r"cudnn\w*\.h", "cublas": r"cublas\w*\.h",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
# What is code and not a comment, a string or a character.
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
PRINTING = re.compile(r"(?<![\w.>])((?:v?printf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|"
                      r"abort)(?=\s*\()|stdout|stderr)\b")
ALLOCATING = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|reallocarray|free|aligned_alloc|"
                        r"posix_memalign|strdup|strndup|v?asprintf)(?=\s*\()")
# free() of what a library allocated says whose it is: "free(p); /* SQLite's */".
OWNED = re.compile(r"/\*[^*]*\b(" + "|".join(LIBRARIES) + r"|libjpeg|libpng|libwebp|sqlite|libc|"
                   r"onednn|cuda)\b[^*]*\*/\s*$", re.I)
FAST_MATH = re.compile(r"-ffast-math|-Ofast|-funsafe-math-optimizations")
SPDX = "SPDX-License-Identifier: Apache-2.0"
SPDX_FILES = (".c", ".h", ".cpp", ".cu", ".def", ".py", ".sh", ".html", ".js", ".css", ".mk")


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def walk(root, *tops):
    """Paths below the given folders, relative to the root."""
    for top in tops:
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = sorted(d for d in folders if not d.startswith((".", "__")))
            for name in sorted(names):
                yield os.path.relpath(os.path.join(folder, name), root)


def sources(root):
    return [p for p in walk(root, "src", "include") if p.endswith(SOURCE)]


def floor_of(path):
    """The floor of a source, or of an include's name; None when it is not of this house."""
    parts = path.split("/")
    if parts[:2] == ["include", "tessera"] or parts[0] == "tessera":
        stem = parts[-1].split(".")[0]
        return HEADER_FLOORS.get(stem, stem)
    if parts[0] == "src":
        parts = parts[1:]
    return parts[0] if len(parts) > 1 else None


def code_of(text):
    """The text with comments, strings and characters blanked, line numbers kept."""
    return NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def check_arrows(root):
    for path in sources(root):
        here = floor_of(path)
        if here not in FLOORS:
            yield f"{path}: belongs to no floor: expected one of {', '.join(FLOORS)}"
            continue
        text = read(root, path)
        for m in INCLUDE.finditer(text):
            where, name = f"{path}:{line_of(text, m.start(2))}", m.group(2)
            if m.group(1) == "<" and not name.startswith("tessera/"):
                continue
            there = floor_of(name)
            if there not in FLOORS:
                yield f'{where}: "{name}": expected "tessera/FLOOR.h" or "FLOOR/name.h"'
            elif there != here and FLOORS[there] >= FLOORS[here]:
                way = "up" if FLOORS[there] > FLOORS[here] else "sideways"
                yield f'{where}: "{name}": {here} may not look {way} at {there}'


def check_doors(root):
    users = {}
    for path in sources(root):
        for _, name in INCLUDE.findall(read(root, path)):
            for library, pattern in LIBRARIES.items():
                if re.fullmatch(pattern, name):
                    users.setdefault(library, set()).add(path)
    for library, paths in sorted(users.items()):
        if len(paths) > 1:
            yield f"{library} has more than one door: {', '.join(sorted(paths))}"


def calls(root, pattern, allowed_floor):
    """(where, found word, its line) for every match in code outside the allowed floor."""
    for path in sources(root):
        if floor_of(path) == allowed_floor:
            continue
        text = read(root, path)
        lines = text.split("\n")
        for m in pattern.finditer(code_of(text)):
            n = line_of(text, m.start())
            yield f"{path}:{n}", m.group(1), lines[n - 1]


def check_printing(root):
    for where, word, line in calls(root, PRINTING, "cli"):
        if word == "_exit" and line.endswith("/* a child's end */"):
            continue
        yield f"{where}: {word}: only src/cli prints or exits"


def check_allocation(root):
    for where, word, line in calls(root, ALLOCATING, "base"):
        if word != "free" or not OWNED.search(line):
            yield (f"{where}: {word}: allocation goes through base (a library's own memory: "
                   "end the line with a comment that names the library)")


def check_fast_math(root):
    for path in ["Makefile", *sources(root)]:
        if os.path.exists(os.path.join(root, path)) and FAST_MATH.search(read(root, path)):
            yield f"{path}: fast math breaks isnan and bit-exactness"


def check_licence(root):
    paths = list(walk(root, "src", "include", "tests", "script", "bench", "recipes"))
    for path in ["Makefile", *paths]:
        full = os.path.join(root, path)
        if not os.path.exists(full) or path.startswith("tests/fixtures/fuzz/"):
            continue
        with open(full, "rb") as f:
            head = f.read(400)
        if not (path.endswith(SPDX_FILES) or path == "Makefile" or head.startswith(b"#!")):
            continue
        if SPDX not in "\n".join(head.decode("utf-8", "replace").split("\n")[:3]):
            yield f"{path}: expected \"{SPDX}\" among the first three lines"


def check_names(root):
    seen = {}
    for path in walk(root, "src"):
        seen.setdefault(os.path.basename(path), []).append(path)
    for name, paths in sorted(seen.items()):
        if len(paths) > 1:
            yield f"{name}: a name is used once in src: {', '.join(paths)}"


def check_executable(root):
    for path in walk(root, "tests"):
        if re.match(r"test_.*\.(py|sh)$", os.path.basename(path)):
            if not os.access(os.path.join(root, path), os.X_OK):
                yield f"{path}: tests/run cannot run it: chmod +x"


RULES = {
    "arrows": check_arrows, "doors": check_doors, "printing": check_printing,
    "allocation": check_allocation, "fast_math": check_fast_math, "licence": check_licence,
    "names": check_names, "executable": check_executable,
}

# ---- a small house that keeps every rule, and what breaks each ----

C = "/* " + SPDX + " */\n"
CLEAN = {
    "Makefile": "# " + SPDX + "\nCFLAGS = -O2\n",
    "include/tessera/base.h": C,
    "include/tessera/text.h": C + '#include "tessera/base.h"\n',
    "include/tessera/data.h": C + '#include "tessera/text.h"\n',
    "src/base/memory.c": C + '#include "tessera/base.h"\n#include <jansson.h>\n'
                             "void *f(void) { return malloc(1); }\n",
    "src/text/words.h": C,
    "src/text/words.c": C + '#include "text/words.h"\n#include "tessera/text.h"\n'
                            '#include "base/os.h"\n#include <sqlite3.h>\n'
                            "/* malloc(1); printf(\"x\"); */ // exit(1)\n"
                            "void f(void *p) {\n    free(p); /* SQLite's own */\n}\n"
                            "int g(void *p) __attribute__((format(printf, 1, 2)));\n"
                            'const char *s = "exit(1) free(x)"; char c = \'"\';\n'
                            "void c(void) {\n    _exit(0); /* a child's end */\n}\n"
                            "void h(struct s *s) { s->free(s); s->abort(s); tess_free(s);\n"
                            "    fprintf(s->file, \"x\"); }\n",
    "src/train/loop.c": C + '#include "tessera/data.h"\n',
    "src/cli/main.c": C + '#include "tessera/data.h"\nint main(void) { printf("x"); exit(1); }\n',
    "tests/run": "#!/bin/bash\n# " + SPDX + "\n",
    "tests/text/test_words.py": "#!/usr/bin/python3\n# " + SPDX + "\n",
}
MUTANTS = [
    ("arrows", "src/base/memory.c", '#include "tessera/text.h"\n'),
    ("arrows", "src/base/memory.c", "#include <tessera/text.h>\n"),
    ("arrows", "src/text/words.c", '#include "tessera/vision.h"\n'),
    ("arrows", "src/text/words.c", '#include "vision/decode.h"\n'),
    ("arrows", "src/text/words.c", '  #  include "tessera/data.h"\n'),
    ("arrows", "src/train/loop.c", '#include "serve/http.h"\n'),
    ("arrows", "include/tessera/text.h", '#include "tessera/fusion.h"\n'),
    ("arrows", "src/text/words.c", '#include "words.h"\n'),
    ("arrows", "src/attic/old.c", C),
    ("doors", "src/train/loop.c", "#include <sqlite3.h>\n"),
    ("doors", "src/train/loop.c", "#include <jansson.h>\n"),
    ("printing", "src/train/loop.c", 'void f(void) { printf("x"); }\n'),
    ("printing", "src/train/loop.c", 'void f(void) { fprintf(stderr, "x"); }\n'),
    ("printing", "src/train/loop.c", 'void f(void) { fputs("x", stdout); }\n'),
    ("printing", "src/train/loop.c", 'void f(void) { puts("x"); }\n'),
    ("printing", "src/train/loop.c", 'void f(void) { perror("x"); }\n'),
    ("printing", "src/train/loop.c", "void f(void) { exit (1); }\n"),
    ("printing", "src/train/loop.c", "void f(void) { _exit(1); }\n"),
    ("printing", "src/train/loop.c", "void f(void) { exit(1); /* a child's end */\n}\n"),
    ("printing", "src/base/memory.c", "void f(void) { abort(); }\n"),
    ("allocation", "src/train/loop.c", "void *f(void) { return malloc(1); }\n"),
    ("allocation", "src/train/loop.c", "void *f(void) { return calloc(1, 1); }\n"),
    ("allocation", "src/train/loop.c", "void *f(void *p) { return realloc(p, 1); }\n"),
    ("allocation", "src/train/loop.c", "void f(void *p) { free(p); }\n"),
    ("allocation", "src/train/loop.c", "void f(void *p) { free(p); /* ours */ }\n"),
    ("allocation", "src/train/loop.c", "void *f(void) { return malloc(1); /* SQLite's */ }\n"),
    ("fast_math", "Makefile", "CFLAGS += -ffast-math\n"),
    ("fast_math", "Makefile", "CFLAGS += -Ofast\n"),
    ("licence", "src/train/bare.c", "int x;\n"),
    ("licence", "script/bare", "#!/bin/sh\n"),
    ("licence", "tests/text/test_bare.c", "\n\n\n" + C),
    ("names", "src/train/words.c", C),
    ("executable", "tests/text/test_plain.py", "# " + SPDX + "\n"),
]


def plant(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(full, 0o755 if text.startswith("#!") else 0o644)


def broken_rules(files):
    with tempfile.TemporaryDirectory() as root:
        plant(root, files)
        return {name: found for name, rule in RULES.items() if (found := list(rule(root)))}


def check_self():
    """What is wrong with the rules themselves."""
    found = broken_rules(CLEAN)
    if found:
        yield f"the clean house breaks {found}"
        return
    for rule, path, text in MUTANTS:
        found = broken_rules({**CLEAN, path: CLEAN.get(path, "") + text})
        if set(found) != {rule}:
            yield f"{path} + {text!r}: expected {rule} to object, found {found}"
    for rule in RULES.keys() - {rule for rule, _, _ in MUTANTS}:
        yield f"{rule} has no mutant"


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    n_failed = 0
    for name, violations in [*((n, list(r(root))) for n, r in RULES.items()),
                             ("the rules themselves", list(check_self()))]:
        n_failed += bool(violations)
        for violation in violations:
            print(f"{name}: {violation}")
    print(f"{len(RULES) + 1 - n_failed} passed, {n_failed} failed")
    return n_failed > 0


if __name__ == "__main__":
    sys.exit(main())
