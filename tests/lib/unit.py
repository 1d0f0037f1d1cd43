#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs unit test programs side by side and counts their test functions.

usage: unit.py [--json-summary FILE] [--timeout SECONDS] [--wrap COMMAND] PROGRAM...

A program prints TAP (cmocka does so when asked). Functions that were announced but never reported, a non-zero
exit status without a failed function (a sanitizer's report) and a time-out count as failures.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys

PLAN = re.compile(r"^1\.\.(\d+)$", re.M)
RESULT = re.compile(r"^(not )?ok \d+(?: -)?( # SKIP)? ?(.*)$", re.M)


def run_program(program, wrap, timeout_s):
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    for name, value in (("ASAN_OPTIONS", "detect_stack_use_after_return=1"), ("UBSAN_OPTIONS", "print_stacktrace=1"),
                        ("TSAN_OPTIONS", "second_deadlock_stack=1")):
        env.setdefault(name, value)
    try:
        done = subprocess.run(wrap + [program], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout_s)
        status, output = done.returncode, done.stdout
        why = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
    except subprocess.TimeoutExpired as e:
        status, output = 124, e.stdout or b""
        why = f"no end after {timeout_s:g} s"
    text = output.decode(errors="replace")

    planned = sum(int(n) for n in PLAN.findall(text))
    passed = failed = skipped = 0
    for bad, skip, _ in RESULT.findall(text):
        if skip:
            skipped += 1
        elif bad:
            failed += 1
        else:
            passed += 1
    if planned == 0:
        failed += 1
        why = f"announced no test, {why}"
    elif planned > passed + failed + skipped:
        failed += planned - passed - failed - skipped
        why = f"ended early, {why}"
    elif status != 0 and failed == 0:
        failed += 1
    return program, (passed, failed, skipped), why, text


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--json-summary")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--wrap", default="", help="a command that runs each program, such as setarch -R")
    parser.add_argument("programs", nargs="+")
    args = parser.parse_args()

    total = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(run_program, p, shlex.split(args.wrap), args.timeout) for p in args.programs]
        for job in concurrent.futures.as_completed(jobs):
            program, counts, why, text = job.result()
            name = os.path.basename(program)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                print(text, end="" if text.endswith("\n") else "\n")
                print(f"not ok {name}: {counts[1]} failed, {why}", flush=True)
            else:
                print(f"ok {name} ({counts[0]}{f', {counts[2]} skipped' if counts[2] else ''})", flush=True)
    if args.json_summary:
        os.makedirs(os.path.dirname(args.json_summary) or ".", exist_ok=True)
        with open(args.json_summary, "w") as f:
            json.dump(dict(zip(("passed", "failed", "skipped"), total)), f)
    print("{} passed, {} failed, {} skipped".format(*total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
