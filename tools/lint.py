#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what a compiler cannot: format, static analysis, room borders, sizes, and documents that drift.

usage: lint.py [--json-summary FILE] [--build DIR] [CHECK...]      (no CHECK: all of them)

A room is a directory with a README.md; in userspace/ that README says which rooms it may include:
"May use: base, ring." ("May use: nothing." for the lowest). Prints one line a check; exit status 1 when one failed.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 600
MAX_COLUMNS, MAX_COLUMNS_PYTHON = 120, 140
ROOMS = ("userspace", "bpf", "csi", "include", "tools", "deploy", "tests")
# Headers that one room hides from all others.
PRIVATE_HEADERS = {"fuse_lowlevel.h": {"fs", "ctl"}, "curl/curl.h": {"s3"}, "expat.h": {"s3"},
                   "bpf/libbpf.h": {"trace"}, "bpf/bpf.h": {"trace"}}
BANNED = {
    "strcpy": "snprintf() or struct buf",
    "strcat": "snprintf() or struct buf",
    "sprintf": "snprintf() or struct buf",
    "gets": "getline()",
    "atoi": "number_parse()",
    "atol": "number_parse()",
    "strtok": "strtok_r() or strchr()",
    "system": "posix_spawn()",
    "popen": "posix_spawn()",
    "abort": "an error to the caller",
    "exit": "an error to the caller",
}
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
LATER = re.compile(r"\b(?:TO" r"DO|FIX" r"ME)\b")
LONG_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")


def files(*suffixes, below=""):
    """Files of the tree with one of the suffixes, without build output and hidden directories."""
    found = []
    for directory, names, entries in os.walk(ROOT / below):
        names[:] = [n for n in names if not n.startswith(".") and n not in ("build", "__pycache__")]
        found += [pathlib.Path(directory, e) for e in entries if e.endswith(suffixes)]
    return sorted(found)


def relative(path):
    return str(path.relative_to(ROOT))


def c_files(below=""):
    return [f for f in files(".c", ".h", below=below) if f.name != "vmlinux.h"]


def code_of(path):
    """The text without comments and strings, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda m: "\n" * m[0].count("\n"), path.read_text())


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def run(command):
    """Complaints of a program: its output when it failed."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return (done.stdout.splitlines() or [f"{command[0]}: exit status {done.returncode}"]) if done.returncode else []


def check_format(_):
    """C files are as clang-format would write them (make format)"""
    def differs(path):
        return subprocess.run(["clang-format", "--dry-run", "-Werror", path], stderr=subprocess.DEVNULL).returncode != 0

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        sources = c_files()
        return [f"{relative(path)}: clang-format would change it"
                for path, bad in zip(sources, pool.map(differs, sources)) if bad]


def check_cppcheck(args):
    """cppcheck finds nothing"""
    work = args.build / "cppcheck"
    work.mkdir(parents=True, exist_ok=True)
    # Left to others: leaks, since cppcheck knows no cleanup attribute (LeakSanitizer does), and uninitialised
    # variables, which it sees wherever an address is taken (the compilers warn). autoVariables: a context on the
    # stack is how a call that waits for its answer passes it. internalAstError: macros that it cannot parse; BPF
    # programs, which are little else, are left to the kernel's verifier.
    return run(["cppcheck", "--quiet", "--std=c11", "--enable=warning,performance,portability", "--error-exitcode=1",
                f"-j{os.cpu_count()}", f"--cppcheck-build-dir={work}", "--template=gcc", "--inline-suppr",
                *[f"--suppress={name}" for name in ("memleak", "resourceLeak", "uninitvar", "autoVariables",
                                                    "internalAstError")],
                "-Iuserspace", "-Iinclude", "-Itests",
                *[relative(f) for f in c_files() if f.suffix == ".c" and not f.name.endswith(".bpf.c")]])


def check_readmes(_):
    """Every room has a README.md"""
    rooms = [ROOT / r for r in ROOMS if (ROOT / r).is_dir()]
    rooms += [d for d in (ROOT / "userspace").iterdir() if d.is_dir()]
    return [f"{relative(r)}: has no README.md" for r in sorted(rooms) if not (r / "README.md").is_file()]


def may_use():
    """Room -> the rooms that its README allows."""
    rooms = {}
    for directory in sorted((ROOT / "userspace").iterdir()):
        readme = directory / "README.md"
        line = re.search(r"^May use: (.*?)\.?$", readme.read_text(), re.M) if readme.is_file() else None
        if directory.is_dir():
            names = re.split(r",\s*", line[1]) if line else []
            rooms[directory.name] = None if not line else {n for n in names if n != "nothing"}
    return rooms


def check_rooms(_):
    """Rooms include only what their README allows, and no two include each other"""
    rooms = may_use()
    bad = [f"userspace/{room}/README.md: has no line \"May use: ...\"" for room, uses in rooms.items() if uses is None]
    allowed = {room: uses or set() for room, uses in rooms.items()}
    for room, uses in allowed.items():
        bad += [f"userspace/{room}/README.md: may use {u}, which is no room" for u in sorted(uses - set(allowed))]
        bad += [f"userspace/{room} and userspace/{u} may use each other" for u in sorted(uses)
                if room < u and room in allowed.get(u, ())]
    for path in c_files("userspace"):
        room = path.relative_to(ROOT / "userspace").parts[0]
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if not include:
                continue
            where, name = f"{relative(path)}:{number}", include[2]
            if include[1] == '"':
                other = name.split("/")[0]
                if "/" not in name:
                    bad.append(f'{where}: "{name}" should name its room: "{room}/{name}"')
                elif other != room and other not in allowed.get(room, ()):
                    bad.append(f"{where}: {room} may not use {other} (userspace/{room}/README.md)")
            elif room not in PRIVATE_HEADERS.get(name, {room}):
                bad.append(f"{where}: <{name}> belongs to {' and '.join(sorted(PRIVATE_HEADERS[name]))} alone")
    return bad


def check_sizes(_):
    """No file is over 600 lines, no line over 120 columns (Python 140)"""
    bad = []
    for path in files(".c", ".h", ".py", ".sh", ".mk"):
        if path.name == "vmlinux.h":
            continue
        lines = path.read_text().splitlines()
        most = MAX_COLUMNS_PYTHON if path.suffix == ".py" else MAX_COLUMNS
        if len(lines) > MAX_LINES:
            bad.append(f"{relative(path)}: {len(lines)} lines, at most {MAX_LINES}")
        bad += [f"{relative(path)}:{n}: {len(line.expandtabs(8))} columns, at most {most}"
                for n, line in enumerate(lines, 1) if len(line.expandtabs(8)) > most]
    return bad


def check_code(_):
    """Licence lines, no banned function, no typedef of a struct, no note for later"""
    bad = [f"{relative(f)}: first line is not its SPDX licence" for f in files(".c", ".h")
           if "SPDX-License-Identifier:" not in f.read_text().partition("\n")[0]]
    banned = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(BANNED))
    for path in c_files("userspace"):
        text = code_of(path)
        bad += [f"{relative(path)}:{line_of(text, m.start())}: {m[1]}() is banned: use {BANNED[m[1]]}"
                for m in banned.finditer(text)]
    for path in c_files():
        text = code_of(path)
        bad += [f"{relative(path)}:{line_of(text, m.start())}: a struct is never typedef'd"
                for m in re.finditer(r"\btypedef\s+(?:struct|union|enum)\b", text)]
        bad += [f"{relative(path)}:{n}: a note for later: do it or file an issue"
                for n, line in enumerate(path.read_text().splitlines(), 1) if LATER.search(line)]
    return bad


def check_scripts(_):
    """Shell and Python scripts parse, programs among them are executable"""
    bad = []
    for path in files(""):
        try:
            with open(path, encoding="utf-8") as f:
                first = f.readline()
        except UnicodeDecodeError:
            continue
        is_program = first.startswith("#!")
        if is_program and not os.access(path, os.X_OK):
            bad.append(f"{relative(path)}: starts with #! and is not executable")
        if path.suffix == ".py" or (is_program and "python" in first):
            try:
                compile(path.read_text(), relative(path), "exec")
            except SyntaxError as e:
                bad.append(f"{relative(path)}:{e.lineno}: {e.msg}")
        elif path.suffix == ".sh" or path.parent.name == "completion" or (is_program and "sh" in first):
            bad += run(["bash", "-n", relative(path)])
    return bad


def check_options(args):
    """penstock --help, its man page and its completion name the same options"""
    program = args.build / "bin" / "penstock"
    if not (ROOT / "userspace/daemon/main.c").is_file():
        return None
    if not program.is_file():
        return [f"{program}: not built (make)"]
    done = subprocess.run([program, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    documents = {"penstock --help": done.stdout}
    for name in ("tools/man/penstock.1", "tools/completion/penstock"):
        path = ROOT / name
        documents[name] = path.read_text().replace("\\-", "-") if path.is_file() else ""
    options = {name: set(LONG_OPTION.findall(text)) for name, text in documents.items()}
    every = set.union(*options.values())
    return [f"{name}: lacks --{option}" for name, has in options.items() for option in sorted(every - has)]


CHECKS = {name.removeprefix("check_"): f for name, f in list(globals().items()) if name.startswith("check_")}


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--json-summary", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], metavar="CHECK")
    args = parser.parse_args()
    args.build = args.build.resolve()

    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name in args.checks or CHECKS:
        try:
            bad = CHECKS[name](args)
        except FileNotFoundError as e:
            bad = [f"{e.filename} is missing: run \"make deps\""]
        if bad is None:
            counts["skipped"] += 1
            print(f"skip {name} # nothing to check yet", flush=True)
            continue
        for line in bad:
            print(f"  {line}")
        counts["failed" if bad else "passed"] += 1
        print(f"{'not ok' if bad else 'ok'} {name}: {CHECKS[name].__doc__}", flush=True)
    if args.json_summary:
        args.json_summary.parent.mkdir(parents=True, exist_ok=True)
        args.json_summary.write_text(json.dumps(counts))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
